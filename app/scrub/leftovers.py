"""Files that nobody refers to: found, and removed where no writer can be about to refer to them.

A content address may come back: the next attempt at a job makes the same bytes as the one that
died, and gives them the same name. So a file is removed under the lock that whoever is about to
refer to it shares (``app.artifacts.lock_file``), after a second look at rows and file.
"""

import os
from collections.abc import Collection, Iterable
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
    # It came back, as from a backup. Nobody can be about to refer to it: such bytes are refused.
    PURGED = "purged"
    SIGNATURE = "signature without its file"


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


def find(
    listing: Listing, named: set[str], purged: Collection[str] = frozenset()
) -> list[Leftover]:
    """Return the files that no row names and no living process writes, of any age.

    Args:
        listing: what lies in the store.
        named: digests of the files that rows ask for.
        purged: digests of the files that were removed for good.

    """
    half_written = [
        _leftover(Kind.HALF_WRITTEN, file)
        for file in listing.incoming
        if not is_being_written(file.path)
    ]
    unreferenced = [
        _leftover(Kind.PURGED if digest in purged else Kind.UNREFERENCED, file, digest)
        for digest, file in listing.artifacts.items()
        if digest not in named
    ]
    signatures = [
        _leftover(Kind.SIGNATURE, file, digest) for digest, file in listing.signatures.items()
    ]
    return half_written + unreferenced + signatures


def may_go(leftover: Leftover, older_than: timedelta) -> bool:
    """Tell whether a file is nobody's work: by its age, or because it was purged."""
    return leftover.kind is Kind.PURGED or is_older(leftover.modified_at, older_than)


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
        elif leftover.kind is Kind.SIGNATURE:
            if not _remove_signature(store, leftover.digest):
                return None
        elif not _remove_unreferenced(store, leftover, leftover.digest, older_than):
            return None
    except StorageFailed as error:
        return replace(leftover, error=error.detail)
    except OSError as error:
        return replace(leftover, error=f"{os.strerror(error.errno or 0)}.")
    except OperationalError as error:
        return replace(leftover, error=f"The database did not answer ({type(error).__name__}).")
    return replace(leftover, removed=True)


def _remove_unreferenced(
    store: ArtifactStore, leftover: Leftover, digest: str, older_than: timedelta
) -> bool:
    with transaction() as session:
        lock_file(session, digest)
        if rows.named(session, older_than, [digest]):
            return False
        # A file that was written again meanwhile has a new date, even if nobody refers to it yet.
        path = store.find(digest)
        if path is not None and not may_go(
            replace(leftover, modified_at=_modified_at(path)), older_than
        ):
            return False
        store.remove(digest)
        return True


def _remove_signature(store: ArtifactStore, digest: str) -> bool:
    with transaction() as session:
        lock_file(session, digest)
        # Its file may have come back, and with it somebody who is about to refer to both.
        if store.find(digest) is not None:
            return False
        discard(store.signature_path_of(digest))
        return True


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, now().tzinfo)


def _leftover(kind: Kind, file: File, digest: str | None = None) -> Leftover:
    return Leftover(kind, file.path, digest, file.size_bytes, file.modified_at)
