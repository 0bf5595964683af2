"""What nobody refers to is found and removed; what anybody may be about to refer to never is."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError

from app.artifacts import lock_file
from app.db import transaction
from app.derived import ledgers
from app.derived.ledgers import ToCompute
from app.registry import service as registry
from app.scrub import leftovers
from app.scrub.files import list_files
from app.scrub.leftovers import Kind, Leftover
from app.tables import ModelVersion, RegisteredModel
from lethe.policy import Policy
from tests.app.gradient_ledgers import POLICY, announce, begin, claim, finish, void
from tests.app.scrubbing import (
    DAY,
    check,
    look,
    make_old,
    orphan,
    publish,
    purge,
    run,
    run_json,
    store,
)


@pytest.fixture
def served(register: Callable[..., UUID]) -> ModelVersion:
    """The first version of a model called digits, two days old."""
    version = check(register("digits", POLICY))
    make_old(store().path_of(version.digest))
    return version


def _found() -> list[Leftover]:
    """The unreferenced files before any is looked at a second time."""
    return leftovers.find(list_files(store()), named=set())


def _register(name: str, digest: str) -> UUID:
    with transaction() as session:
        return registry.register(session, name, "digits", digest, Policy()).id


def _announce_impatiently(claimed: ToCompute, digest: str) -> None:
    with transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        ledgers.announce(session, claimed, digest, pytest.fail)


def test_a_file_that_nobody_refers_to_is_named_and_removed_only_when_asked(
    served: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store().path_of(orphan())
    status, printed = run(capsys)
    relative = path.relative_to(store().folder)
    assert (status, path.exists()) == (0, True)
    assert f"unreferenced: {relative}, 23 bytes of " in printed
    assert "leftovers: 1 (--remove-leftovers removes them" in printed
    status, found = run_json(capsys, "--remove-leftovers")
    assert (status, path.exists()) == (0, False)
    [one] = found["leftovers"]
    assert (one["kind"], one["path"], one["removed"]) == ("unreferenced", str(relative), True)
    assert look().leftovers == ()
    assert store().find(served.digest) is not None


def test_young_files_are_counted_and_left_alone(served: ModelVersion) -> None:
    unreferenced = store().path_of(orphan())
    half_written = store().folder / ".incoming-1"
    half_written.write_bytes(b"half")
    for path in (unreferenced, half_written):
        make_old(path, DAY - timedelta(minutes=5))
    report = look(remove_leftovers=True)
    assert (report.leftovers, report.young, report.is_clean) == ((), 2, True)
    assert unreferenced.exists()
    assert half_written.exists()
    for path in (unreferenced, half_written):
        make_old(path, DAY + timedelta(minutes=5))
    report = look(remove_leftovers=True)
    assert [(one.kind, one.path, one.removed) for one in report.leftovers] == [
        (Kind.HALF_WRITTEN, half_written, True),
        (Kind.UNREFERENCED, unreferenced, True),
    ]
    assert (report.young, unreferenced.exists(), half_written.exists()) == (0, False, False)


def test_the_file_of_a_writer_at_work_is_no_leftover_however_old(served: ModelVersion) -> None:
    with store().incoming() as file:
        file.write(b"slowly")
        path = file.flush()
        make_old(path)
        assert look(remove_leftovers=True).leftovers == ()
        dead = path.with_name(".incoming-dead")
        dead.write_bytes(path.read_bytes())
        make_old(dead)
        assert [one.path for one in look(remove_leftovers=True).leftovers] == [dead]
        assert file.keep().size_bytes == 6
    assert not dead.exists()


def test_what_any_row_needs_stays(served: ModelVersion, register: Callable[..., UUID]) -> None:
    second = publish(served, b"weights of version 2")
    register("being checked")
    computed = claim(begin(second.model_id))
    finish(computed, store().put([b"a sum"]).digest)
    other = check(register("other", POLICY))
    announced = claim(begin(other.model_id))
    announce(announced, store().put([b"a sum to come"]).digest)
    for file in list_files(store()).artifacts.values():
        make_old(file.path)
    before = list_files(store()).artifacts.keys()
    void(computed)  # its file is the service's to remove
    assert look(remove_leftovers=True).leftovers == ()
    assert list_files(store()).artifacts.keys() == before
    assert len(before) == 6


def test_the_file_of_a_purged_version_goes_though_its_model_was_registered_with_it(
    served: ModelVersion,
) -> None:
    publish(served, b"weights of version 2")
    assert look(remove_leftovers=True).leftovers == ()
    purge(served)
    assert [one.digest for one in look(remove_leftovers=True).leftovers] == [served.digest]
    assert store().find(served.digest) is None


def test_the_checkpoint_of_a_model_that_was_rejected_stays_for_another_try(
    register: Callable[..., UUID], reject: Callable[..., None]
) -> None:
    model_id = register("bad")
    reject(model_id, {"code": "test", "detail": "test"})
    path = store().path_of(store().put([b"bad"]).digest)
    make_old(path)
    assert look(remove_leftovers=True).leftovers == ()
    with transaction() as session:
        session.execute(
            update(RegisteredModel).values(checked_at=text("now() - interval '2 days'"))
        )
    assert [one.path for one in look(remove_leftovers=True).leftovers] == [path]


def test_a_file_that_a_row_came_to_name_meanwhile_stays(served: ModelVersion) -> None:
    digest = orphan()
    [found] = [one for one in _found() if one.digest == digest]
    _register("late", digest)
    assert leftovers.remove(store(), [found], DAY) == []
    assert store().find(digest) is not None


def test_a_file_that_is_written_again_meanwhile_stays(served: ModelVersion) -> None:
    digest = orphan(b"the same weights")
    [found] = [one for one in _found() if one.digest == digest]
    store().put([b"the same weights"])  # by another attempt, which has not published yet
    assert leftovers.remove(store(), [found], DAY) == []
    assert store().find(digest) is not None


def test_a_removal_waits_for_whoever_is_about_to_refer_to_the_file(served: ModelVersion) -> None:
    digest = orphan()
    [found] = [one for one in _found() if one.digest == digest]
    done: list[Leftover] = []
    remover = threading.Thread(
        target=lambda: done.extend(leftovers.remove(store(), [found], DAY)), daemon=True
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with transaction() as session:
        assert store().hold(session, digest) is not None
        registry.register(session, "late", "digits", digest, Policy())
        remover.start()
        while remover.is_alive():
            with transaction() as other:
                if other.scalar(text(waiting)):
                    break
    remover.join(timeout=20)
    assert (done, store().find(digest) is None) == ([], False)


def test_who_is_about_to_refer_to_a_removed_file_learns_that_it_is_gone(
    served: ModelVersion,
) -> None:
    digest = orphan()
    with transaction() as one, transaction() as other:  # who do not wait for each other
        assert store().hold(one, digest) == store().hold(other, digest) == store().path_of(digest)
    assert [one.removed for one in look(remove_leftovers=True).leftovers] == [True]
    with transaction() as session:
        assert store().hold(session, digest) is None


def test_a_ledger_is_not_announced_while_its_file_is_being_removed(served: ModelVersion) -> None:
    claimed = claim(begin(served.model_id))
    digest = orphan()
    with transaction() as remover:
        lock_file(remover, digest)
        with pytest.raises(OperationalError, match="lock timeout"):
            _announce_impatiently(claimed, digest)
    announce(claimed, digest)


def test_what_is_not_the_stores_is_left_alone(served: ModelVersion, tmp_path: Path) -> None:
    folder, hexadecimal = store().folder, "ab" + "0" * 62
    folders = [folder / "lost+found", folder / "sha256" / "empty"]
    files = [
        folder / "notes.txt",
        folder / "sha256" / "notes.txt",
        folder / "sha256" / "ab" / "README",
        folder / "sha256" / "cd" / hexadecimal,  # in another's place
        tmp_path / "outside",
    ]
    for path in [*folders, *(file.parent for file in files)]:
        path.mkdir(exist_ok=True)
    for path in files:
        path.write_bytes(b"somebody's")
        make_old(path)
    link = store().path_of("sha256:" + hexadecimal)
    link.symlink_to(files[-1])
    os.utime(link, (0, 0), follow_symlinks=False)
    report = look(remove_leftovers=True)
    assert (report.leftovers, report.is_clean) == ((), True)
    assert all(path.exists() for path in (*folders, *files, link))
    assert set(report.foreign) == {folders[0], link, *files[:-1]}


def test_a_referenced_file_behind_a_link_is_followed(served: ModelVersion, tmp_path: Path) -> None:
    path = store().path_of(served.digest)
    moved = path.rename(tmp_path / "on another disk")
    path.symlink_to(moved)
    assert look(remove_leftovers=True).is_clean
    moved.write_bytes(b"other")
    assert len(look().damaged) == 1
