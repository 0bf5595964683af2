"""Files that nobody refers to: found, and removed where no writer can be about to refer to them.

A content address may come back: the next attempt at a job makes the same bytes as the one that
died, and gives them the same name. So a file is removed under the lock that whoever is about to
refer to it shares (``app.artifacts.lock_file``), after a second look at rows and file.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from sqlalchemy.exc import OperationalError

from app.artifacts import ArtifactStore, discard, is_being_written, lock_file
from app.db import now, transaction
from app.errors import StorageFailed
from app.scrub import rows
from app.scrub.files import File, Listing


class Kind(StrEnum):
    """Why a file lies there for nothing."""

    HALF_WRITTEN = "half-written"
    UNREFERENCED = "unreferenced"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is of no use, and may hold what should be forgotten."""

    kind: Kind
    path: Path
    digest: str | None
    size_bytes: int
    modified_at: datetime
    removed: bool = False
    error: str | None = None
    """Why it was not removed, if it was to be."""


def find(listing: Listing, named: set[str]) -> list[Leftover]:
    """Return the files that no row names and no living process writes, of any age."""
    half_written = [
        _leftover(Kind.HALF_WRITTEN, file)
        for file in listing.incoming
        if not is_being_written(file.path)
    ]
    unreferenced = [
        _leftover(Kind.UNREFERENCED, file, digest)
        for digest, file in listing.artifacts.items()
        if digest not in named
    ]
    return half_written + unreferenced


def is_older(modified_at: datetime, than: timedelta) -> bool:
    """Tell whether a file was last written so long ago."""
    return now() - modified_at >= than


def remove(
    store: ArtifactStore, leftovers: Iterable[Leftover], older_than: timedelta
) -> list[Leftover]:
    """Remove files for good; return what became of each, without those that came into use."""
    return [
        done for leftover in leftovers if (done := _remove(store, leftover, older_than)) is not None
    ]


def _remove(store: ArtifactStore, leftover: Leftover, older_than: timedelta) -> Leftover | None:
    try:
        if leftover.digest is None:
            discard(leftover.path)
        elif not _remove_unreferenced(store, leftover.digest, older_than):
            return None
    except StorageFailed as error:
        return replace(leftover, error=error.detail)
    except OSError as error:
        return replace(leftover, error=f"{os.strerror(error.errno or 0)}.")
    except OperationalError as error:
        return replace(leftover, error=f"The database did not answer ({type(error).__name__}).")
    return replace(leftover, removed=True)


def _remove_unreferenced(store: ArtifactStore, digest: str, older_than: timedelta) -> bool:
    with transaction() as session:
        lock_file(session, digest)
        if rows.named(session, older_than, [digest]):
            return False
        # A file that was written again meanwhile has a new date, even if nobody refers to it yet.
        path = store.find(digest)
        if path is not None and not is_older(_modified_at(path), older_than):
            return False
        store.remove(digest)
        return True


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, now().tzinfo)


def _leftover(kind: Kind, file: File, digest: str | None = None) -> Leftover:
    return Leftover(kind, file.path, digest, file.size_bytes, file.modified_at)
