"""The artifact store: immutable files named by their SHA-256, whole or not there at all."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import ContentTooLarge, StorageFailed

DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is durable in the store."""

    digest: str
    size_bytes: int


class Incoming:
    """A file on its way into the store; seen by nobody until ``keep``.

    Use as a context manager: what was not kept at the end is removed.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        """Open a temporary file beside its future place, on the same file system."""
        self._folder = folder
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=folder)
        except OSError as error:
            raise _storage_failed(error) from error
        self.path = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> "Incoming":
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file unless it was kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            ContentTooLarge: the file grows beyond the limit.
            StorageFailed: the store is full or broken.

        """
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise ContentTooLarge(f"The file may have at most {self._limit} bytes.")
        self._hash.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _storage_failed(error) from error

    def flush(self) -> Path:
        """Return the temporary path with all bytes in it, for a look before keeping it."""
        try:
            self._file.flush()
        except OSError as error:
            raise _storage_failed(error) from error
        return self.path

    def keep(self) -> Stored:
        """Make the bytes durable, then give them their name: a crash leaves all or nothing.

        Raises:
            StorageFailed: the store is full or broken.

        """
        stored = Stored("sha256:" + self._hash.hexdigest(), self._size)
        target = _path(self._folder, stored.digest)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            os.chmod(self.path, 0o440)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, target)
            # The name is durable only when its folder is, and that folder's own name in turn.
            for folder in (target.parent, target.parent.parent, self._folder):
                _fsync_folder(folder)
        except OSError as error:
            raise _storage_failed(error) from error
        return stored


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """A folder of artifacts, shared by the API and the workers."""

    folder: Path

    def incoming(self, limit: int | None = None) -> Incoming:
        """Open a new file of at most ``limit`` bytes."""
        return Incoming(self.folder, limit)

    def put(self, chunks: Iterable[bytes]) -> Stored:
        """Store bytes and return their digest and size.

        Raises:
            StorageFailed: the store is full or broken.

        """
        with self.incoming() as file:
            for chunk in chunks:
                file.write(chunk)
            return file.keep()

    def find(self, digest: str) -> Path | None:
        """Return the path of a stored file; None if there is none of this digest."""
        if not DIGEST_PATTERN.fullmatch(digest):
            return None
        path = _path(self.folder, digest)
        return path if path.is_file() else None

    def remove(self, digest: str) -> None:
        """Delete a file for good; one that is not there is as good as deleted.

        Raises:
            StorageFailed: the store is read-only or broken.

        """
        path = self.find(digest)
        if path is None:
            return
        try:
            path.unlink(missing_ok=True)
            _fsync_folder(path.parent)  # or a crash may bring the file back
        except OSError as error:
            raise _storage_failed(error) from error


def _path(folder: Path, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    # Two levels, since some file systems and tools are slow with very full folders.
    return folder / "sha256" / hexadecimal[:2] / hexadecimal


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_failed(error: OSError) -> StorageFailed:
    return StorageFailed(f"The artifact store answered: {os.strerror(error.errno or 0)}.")
