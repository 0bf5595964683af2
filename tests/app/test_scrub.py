"""A scrub finds each damaged file that a row asks for, and nothing else; the log's damage too."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text, update

from app.audit import ledger
from app.audit.service import place_all
from app.db import transaction
from app.scrub import files
from app.scrub.leftovers import Kind
from app.scrub.report import ADVICE, lines
from app.scrub.rows import Role
from app.tables import Base, ModelVersion
from tests.app.gradient_ledgers import POLICY, begin, claim, finish, void
from tests.app.scrubbing import (
    check,
    damage,
    look,
    publish,
    purge,
    run,
    run_json,
    store,
)


@pytest.fixture
def served(register: Callable[..., UUID]) -> ModelVersion:
    """The first version of a model called digits."""
    return check(register("digits", POLICY))


def _ledger(version: ModelVersion, content: bytes = b"a sum of gradients") -> Any:
    claimed = claim(begin(version.model_id))
    finish(claimed, store().put([content]).digest)
    return claimed


def test_whole_files_and_a_whole_log_are_clean(
    served: ModelVersion, register: Callable[..., UUID], capsys: pytest.CaptureFixture[str]
) -> None:
    second = publish(served, b"weights of version 2")
    register("being checked")
    _ledger(second)
    place_all()
    status, printed = run(capsys)
    assert (status, printed.splitlines()[0]) == (0, f"store {store().folder}")
    assert printed.splitlines()[1].startswith(
        "4 files checked, 57 bytes: 0 damaged; audit log whole"
    )
    status, found = run_json(capsys)
    assert (status, found["clean"], found["checked"]) == (0, True, {"files": 4, "bytes": 57})


FAULTS = {
    "missing": "is missing",
    "cut off": "holds 19 bytes instead of 20",
    "emptied": "holds 0 bytes instead of 20",
    "longer": "holds 21 bytes instead of 20",
    "altered": "is altered: its SHA-256 is ",
}


@pytest.mark.parametrize(("how", "fault"), FAULTS.items(), ids=FAULTS)
def test_a_damaged_current_version_is_said_first_and_loudest(
    served: ModelVersion, capsys: pytest.CaptureFixture[str], how: str, fault: str
) -> None:
    current = publish(served, b"weights of version 2")
    damage(served.digest, "missing")
    _ledger(current)
    relative = damage(current.digest, how).relative_to(store().folder)
    status, printed = run(capsys)
    said = printed.splitlines()
    assert status == 1
    assert said[1].startswith(f"MODEL DAMAGED: digits, current version 2: its file {fault}")
    assert said[2:4] == [f"  file    {relative}", f"  digest  {current.digest}"]
    assert "backup" in said[4]
    assert said[5].startswith("damaged: digits, withdrawn version 1: its file is missing")
    status, found = run_json(capsys)
    first = found["damaged"][0]
    assert (status, found["clean"], len(found["damaged"])) == (1, False, 2)
    assert (first["model"], first["version"], first["digest"]) == ("digits", 2, current.digest)
    assert (first["role"], first["path"]) == ("current version", str(relative))


def test_each_use_of_a_damaged_file_is_reported(
    served: ModelVersion, register: Callable[..., UUID]
) -> None:
    register("new")
    claimed = _ledger(served)
    ledger_digest = store().put([b"a sum of gradients"]).digest
    for digest in (served.digest, store().put([b"new"]).digest, ledger_digest):
        damage(digest, "altered")
    report = look()
    assert [(one.need.role, one.need.model) for one in report.damaged] == [
        (Role.CURRENT, "digits"),
        (Role.CHECKPOINT, "new"),
        (Role.LEDGER, "digits"),
    ]
    said = "\n".join(lines(report))
    assert all(ADVICE[one.need.role] in said for one in report.damaged)
    void(claimed)  # from now on its file is nobody's need
    assert len(look().damaged) == 2


def test_the_bytes_of_one_file_that_two_models_need_are_read_once(
    served: ModelVersion, register: Callable[..., UUID]
) -> None:
    with transaction() as session:
        session.execute(update(ModelVersion).values(digest=store().put([b"other"]).digest))
    register("other")
    read: list[str] = []
    report = look(tell=read.append)
    assert (report.files, len(read)) == (1, 2)  # the log, and the file
    assert [one.fault for one in report.damaged] == ["holds 5 bytes instead of 6"]  # says one row
    damage(store().put([b"other"]).digest, "altered")
    assert len(look().damaged) == 2


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 16 * 2**20)
    tracemalloc.start()
    try:
        found = files.look(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == files.Content(16 * 2**20, digest_of_zeros(16))
    assert peak_bytes < 2 * 2**20


def digest_of_zeros(mebibytes: int) -> str:
    whole = hashlib.sha256()
    for _ in range(mebibytes):
        whole.update(bytes(2**20))
    return "sha256:" + whole.hexdigest()


def test_the_file_of_a_purged_version_may_be_gone(served: ModelVersion) -> None:
    publish(served, b"weights of version 2")
    damage(served.digest, "missing")
    assert len(look().damaged) == 1
    purge(served)
    assert look().is_clean
    # Nobody's work, however young: what was purged is not to come back.
    assert store().put([b"digits"]).digest == served.digest
    assert [(one.kind, one.digest) for one in look().leftovers] == [(Kind.PURGED, served.digest)]


def test_what_is_purged_or_put_back_while_files_are_read_is_no_damage(
    served: ModelVersion, register: Callable[..., UUID]
) -> None:
    other = check(register("other", POLICY))
    publish(served, b"weights of version 2")
    path = damage(served.digest, "missing")
    damage(other.digest, "altered")

    def meanwhile(words: str) -> None:
        if served.digest in words:  # read last, being withdrawn
            assert not path.exists()
            purge(served)
            store().put([b"other"])

    assert look(tell=meanwhile).damaged == ()


def test_a_tampered_log_is_damage(served: ModelVersion, capsys: pytest.CaptureFixture[str]) -> None:
    place_all()
    with transaction() as session:
        session.execute(text("ALTER TABLE audit_entries DISABLE TRIGGER append_only"))
        session.execute(text("UPDATE audit_entries SET payload = '{}' WHERE id = 1"))
    status, printed = run(capsys)
    assert status == 1
    assert printed.splitlines()[1].startswith("AUDIT LOG DAMAGED: ")
    status, found = run_json(capsys)
    assert (status, found["clean"], found["damaged"]) == (1, False, [])
    assert found["audit_problems"]


def test_a_log_that_grows_while_it_is_replayed_is_whole(
    served: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_all()
    real = ledger.leaves

    def grow(*args: Any) -> Any:
        read = real(*args)
        with transaction() as session:
            ledger.append(session, [ledger.Entry("test.event", uuid4(), {})])
        place_all()
        return read

    monkeypatch.setattr(ledger, "leaves", grow)
    assert look().audit_problems == ()


def test_every_column_that_may_name_a_file_was_thought_of() -> None:
    names = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("digest") and column.type.python_type is str
    }
    assert names == {
        "model_versions.digest",
        "registered_models.checkpoint_digest",
        "gradient_ledgers.digest",
        "gradient_ledgers.weights_digest",  # that of its version
        "witness_feeds.url_digest",  # that of an address
    }
