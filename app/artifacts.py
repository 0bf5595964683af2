"""The artifact store: immutable files named by their SHA-256, whole or not there at all."""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.db import lock
from app.errors import ContentTooLarge, StorageFailed

DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
INCOMING_PREFIX = ".incoming-"
ALGORITHM = "sha256"
SIGNATURE_SUFFIX = ".sig"


def lock_file(session: Session, digest: str, *, shared: bool = False) -> None:
    """Hold a file's lock until the transaction ends.

    Whoever removes a file takes it, and looks for rows that name the file. Whoever makes a row
    name a file shares it, and looks for the file. So neither misses what the other did.
    """
    lock(session, f"ledger-file/{digest}", shared=shared)


def is_being_written(path: Path) -> bool:
    """Tell whether the writer of an incoming file still lives, where the file system has locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def discard(path: Path) -> None:
    """Delete a file that nobody writes or needs any more, for good.

    Raises:
        StorageFailed: the store is read-only or broken.

    """
    try:
        path.unlink(missing_ok=True)
        # Or a crash may bring the file back, even one that somebody deleted who died then.
        _fsync_folder(path.parent)
    except FileNotFoundError:
        return  # without its folder there is no file, either
    except OSError as error:
        raise _storage_failed(error) from error


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
            descriptor, name = tempfile.mkstemp(prefix=INCOMING_PREFIX, dir=folder)
        except OSError as error:
            raise _storage_failed(error) from error
        # The kernel drops it when this process dies, however that happens. Where a file system has
        # no locks, the age of a file has to tell a writer at work from a dead one.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> "Incoming":
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file unless it was kept."""
        # Closing tries once more to write what a full disk did not take. The error that matters
        # was raised before; what cannot be removed now, the scrub finds.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
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

    @property
    def digest(self) -> str:
        """The name that the bytes written so far would get."""
        return "sha256:" + self._hash.hexdigest()

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
        stored = Stored(self.digest, self._size)
        self._keep_as(_path(self._folder, stored.digest))
        return stored

    def keep_as_signature_of(self, digest: str) -> None:
        """Make the bytes durable, then let them lie beside a stored file, as its signature.

        Raises:
            StorageFailed: the store is full or broken.

        """
        self._keep_as(_signature_path(self._folder, digest))

    def _keep_as(self, target: Path) -> None:
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
        path = self.path_of(digest)
        return path if path.is_file() else None

    def require_room(self, size_bytes: int) -> None:
        """Refuse work of hours whose outcome would have no place; no promise that there is one.

        Raises:
            StorageFailed: fewer bytes than this are free.

        """
        try:
            free_bytes = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise _storage_failed(error) from error
        if free_bytes < size_bytes:
            raise StorageFailed(
                f"The artifact store has {free_bytes} bytes left, and the new version needs "
                f"{size_bytes}."
            )

    def path_of(self, digest: str) -> Path:
        """Return where the file of this digest lies, or would lie."""
        return _path(self.folder, digest)

    def signature_path_of(self, digest: str) -> Path:
        """Return where the signature of this digest's file lies, or would lie."""
        return _signature_path(self.folder, digest)

    def find_signature(self, digest: str) -> Path | None:
        """Return the path of a stored file's signature; None if there is none."""
        if not DIGEST_PATTERN.fullmatch(digest):
            return None
        path = self.signature_path_of(digest)
        return path if path.is_file() else None

    def hold(self, session: Session, digest: str) -> Path | None:
        """Find a file that a row is to name, and keep it from being removed until the commit."""
        lock_file(session, digest, shared=True)
        return self.find(digest)

    def remove(self, digest: str) -> None:
        """Delete a file and what lies beside it in its name, for good; it may be gone already.

        Raises:
            StorageFailed: the store is read-only or broken.

        """
        if not DIGEST_PATTERN.fullmatch(digest):
            return
        path = self.path_of(digest)
        # The file itself last, since by it whoever comes after a crash finds the rest.
        for beside in sorted(path.parent.glob(path.name + ".*")):
            discard(beside)
        if path.is_symlink():  # an operator moved the file to another disk
            discard(path.resolve())
        discard(path)


def _path(folder: Path, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    # Two levels, since some file systems and tools are slow with very full folders.
    return folder / ALGORITHM / hexadecimal[:2] / hexadecimal


def _signature_path(folder: Path, digest: str) -> Path:
    path = _path(folder, digest)
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_failed(error: OSError) -> StorageFailed:
    return StorageFailed(f"The artifact store answered: {os.strerror(error.errno or 0)}.")
