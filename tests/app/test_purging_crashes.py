"""However a purge is interrupted, the next one completes it, and the log tells of it once."""

import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from app import artifacts
from app.artifacts import lock_file
from app.db import transaction
from app.retention import purging
from app.tables import ModelVersion
from tests.app.gradient_ledgers import POLICY, compute, void
from tests.app.purges import (
    MINUTE,
    WEEK,
    age,
    entries,
    is_there,
    purge_due,
    status,
    wait_for_a_lock,
)
from tests.app.scrubbing import check, look, publish, store


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture
def old(register: Callable[..., UUID]) -> ModelVersion:
    """A version that is due, with a ledger."""
    first = check(register("digits", POLICY))
    computed = compute(first.model_id, store().put([b"a sum"]).digest)
    publish(first, b"weights of version 2")
    void(computed)
    age(first, WEEK + MINUTE)
    return first


def kill_after(removals: int) -> Callable[[str], None]:
    done: list[str] = []

    def delete(digest: str) -> None:
        if len(done) == removals:
            raise Killed
        store().remove(digest)
        done.append(digest)

    return delete


def die_before_the_commit(version: ModelVersion, delete: Callable[[str], None]) -> None:
    with transaction() as session:
        purging.purge(session, version.id, delete)
        raise Killed


@pytest.mark.parametrize("removals", [0, 1, 2])
def test_a_purge_that_was_killed_is_completed_by_the_next(
    old: ModelVersion, removals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sum_digest = store().put([b"a sum"]).digest
    with pytest.raises(Killed):
        die_before_the_commit(old, kill_after(removals))
    assert (status(old), is_there(old)) == ("withdrawn", removals < 2)
    assert entries("version.purged") == []
    assert purge_due() == 1
    assert (status(old), is_there(old), store().find(sum_digest)) == ("purged", False, None)
    assert len(entries("version.purged")) == len(entries("ledger.removed")) == 1
    assert look().is_clean


def test_the_file_is_durably_gone_before_the_row_says_so(
    old: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store().path_of(old.digest)
    real, seen = artifacts._fsync_folder, []  # noqa: SLF001  # where a file's end is durable

    def watch(folder: Path) -> None:
        if folder == path.parent:
            seen.append((path.exists(), status(old)))
        real(folder)

    monkeypatch.setattr(artifacts, "_fsync_folder", watch)
    assert purge_due() == 1
    assert seen == [(False, "withdrawn")]


def test_a_file_that_somebody_deleted_who_died_is_made_durably_gone(
    old: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store().path_of(old.digest)
    path.unlink()  # and no power cut may bring it back
    real, synced = artifacts._fsync_folder, []  # noqa: SLF001  # likewise

    def watch(folder: Path) -> None:
        real(folder)
        synced.append(folder)

    monkeypatch.setattr(artifacts, "_fsync_folder", watch)
    assert purge_due() == 1
    assert path.parent in synced


def test_a_file_that_cannot_be_deleted_stays_withdrawn_and_holds_up_no_other(
    old: ModelVersion, register: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = check(register("other", POLICY))
    publish(other, b"other's version 2")
    age(other, WEEK + MINUTE)
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == old.digest.removeprefix("sha256:"):
            raise OSError(30, "Read-only file system")
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert purge_due() == 1
    assert (status(old), status(other)) == ("withdrawn", "purged")
    assert purge_due() == 1
    assert status(old) == "purged"


def test_of_two_purges_at_once_one_tells_of_it(old: ModelVersion) -> None:
    together = threading.Barrier(2)
    purged: list[int] = []

    def run() -> None:
        together.wait()
        purged.append(purge_due())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(purged) == [0, 1]
    assert len(entries("version.purged")) == 1


def test_whoever_reads_the_weights_under_its_lock_reads_them_to_the_end(old: ModelVersion) -> None:
    started = threading.Event()

    def remove(digest: str) -> None:
        started.set()
        store().remove(digest)

    def purge() -> None:
        with transaction() as session:
            purging.purge(session, old.id, remove)

    thread = threading.Thread(target=purge)
    with transaction() as reader:
        lock_file(reader, old.digest, shared=True)
        thread.start()
        wait_for_a_lock(thread)
        assert (is_there(old), started.is_set()) == (True, False)
    thread.join(timeout=20)
    assert (is_there(old), status(old)) == (False, "purged")
