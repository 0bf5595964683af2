"""What lies in the store's folder, and whether a file of it is whole."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from app.artifacts import ALGORITHM, INCOMING_PREFIX, SIGNATURE_SUFFIX, ArtifactStore
from app.scrub.errors import CannotScrub
from app.scrub.rows import Need


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when it was looked at."""

    path: Path
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """All that lies in the store."""

    artifacts: dict[str, File] = field(default_factory=dict)
    """By digest."""
    signatures: dict[str, File] = field(default_factory=dict)
    """Those whose file is not there, by its digest."""
    incoming: list[File] = field(default_factory=list)
    """Being written, or half-written by somebody who died."""
    foreign: list[Path] = field(default_factory=list)
    """Not the store's own; nobody's business here."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds."""

    size_bytes: int
    digest: str


def list_files(store: ArtifactStore) -> Listing:
    """Return what lies in the store; an empty listing where the folder is not there.

    Raises:
        CannotScrub: this user may not look into it.
        OSError: it cannot be read.

    """
    listed = Listing()
    for path in _entries(store.folder):
        if path.name.startswith(INCOMING_PREFIX):
            listed.incoming.extend(_file(path))
        elif path.name != ALGORITHM:
            listed.foreign.append(path)
    for folder in _entries(store.folder / ALGORITHM):
        for path in _entries(folder) if folder.is_dir() else [folder]:
            digest = f"{ALGORITHM}:{path.name.removesuffix(SIGNATURE_SUFFIX)}"
            if not path.is_symlink() and store.find(digest) == path:
                listed.artifacts.update((digest, file) for file in _file(path))
            elif not path.is_symlink() and store.find_signature(digest) == path:
                if store.find(digest) is None:
                    listed.signatures.update((digest, file) for file in _file(path))
            else:
                listed.foreign.append(path)
    return listed


def look(path: Path) -> Content | str:
    """Return what a file holds, or in words why that cannot be known; in constant memory.

    Raises:
        CannotScrub: this user may not read it.

    """
    try:
        if not path.is_file():
            return "is missing"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, ALGORITHM)
            return Content(os.fstat(file.fileno()).st_size, f"{ALGORITHM}:{digest.hexdigest()}")
    except FileNotFoundError:
        return "is missing"
    except PermissionError as error:
        raise CannotScrub(f"{path} may not be read: run this as the service's user.") from error
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}"


def fault(need: Need, found: Content | str) -> str | None:
    """Return in words what is wrong with a file that a row asks for; None if it is whole."""
    if isinstance(found, str):
        return found
    if need.size_bytes not in (None, found.size_bytes):
        return f"holds {found.size_bytes} bytes instead of {need.size_bytes}"
    if found.digest != need.digest:
        return f"is altered: its SHA-256 is {found.digest.removeprefix('sha256:')}"
    return None


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except FileNotFoundError:
        return  # never written to; or a folder that went meanwhile
    except PermissionError as error:
        raise CannotScrub(f"{folder} may not be read: run this as the service's user.") from error


def _file(path: Path) -> list[File]:
    # None of it where it went meanwhile, as a writer keeps or drops its own, or is no plain file.
    try:
        status = path.lstat()
    except FileNotFoundError:
        return []
    if not stat.S_ISREG(status.st_mode):
        return []
    return [File(path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))]
