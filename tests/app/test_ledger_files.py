"""The file of a gradient ledger goes with it, unless something else needs the same bytes."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from app.db import transaction
from app.derived import ledger_files, ledgers
from app.tables import AuditEntry, ModelVersion, RegisteredModel
from tests.app.gradient_ledgers import (
    FILE,
    OTHER_FILE,
    POLICY,
    announce,
    begin,
    claim,
    compute,
    die,
    events,
    finish,
    found,
    remove,
    row,
    void,
    void_files,
)


@pytest.fixture
def model_id(ready: Callable[..., UUID]) -> UUID:
    """A model trained on `a` to `d`, with its first version."""
    return ready(samples=["a", "b", "c", "d"], policy=POLICY)


def test_the_file_of_a_void_ledger_is_removed_once_and_the_log_says_so(model_id: UUID) -> None:
    claimed = compute(model_id)
    ledger_id = claimed.claim.id
    assert (void_files(), remove(ledger_id)) == ([], [])  # it is in use
    assert found(claimed) is not None
    void(claimed)
    assert void_files() == [(ledger_id, FILE)]
    assert "ledger.removed" not in events(ledger_id)
    assert remove(ledger_id) == [FILE]
    assert (void_files(), remove(ledger_id)) == ([], [])
    assert events(ledger_id).count("ledger.removed") == 1
    with transaction() as session:
        payload = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == "ledger.removed")
        ).one()
    assert FILE in payload
    assert str(claimed.version_id) in payload


def test_a_file_that_cannot_be_deleted_is_tried_again(model_id: UUID) -> None:
    claimed = claim(begin(model_id))
    announce(claimed)  # it may be there, though nobody ever said that it is ready
    void(claimed)

    def fail(digest: str) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"), transaction() as session:
        ledger_files.remove_file(session, claimed.claim.id, fail)
    assert "ledger.removed" not in events(claimed.claim.id)
    assert void_files() == [(claimed.claim.id, FILE)]
    assert remove(claimed.claim.id) == [FILE]


def test_bytes_that_anything_else_needs_stay(
    model_id: UUID, ready: Callable[..., UUID], register: Callable[..., UUID]
) -> None:
    claimed = compute(model_id)
    void(claimed)
    ledger_id = claimed.claim.id
    other_id = ready("other", ["x"], POLICY)
    other = claim(begin(other_id))
    assert void_files() == [(ledger_id, FILE)]
    announce(other)
    assert (void_files(), remove(ledger_id)) == ([], [])
    finish(other)
    assert (void_files(), remove(ledger_id)) == ([], [])
    void(other)
    assert len(void_files()) == 2
    version = update(ModelVersion).where(ModelVersion.model_id == other_id)
    with transaction() as session:
        session.execute(version.values(digest=FILE))
    assert (void_files(), remove(ledger_id)) == ([], [])
    unchecked_id = register("unchecked")
    with transaction() as session:
        session.execute(version.values(digest=OTHER_FILE))
        session.get_one(RegisteredModel, unchecked_id).checkpoint_digest = FILE
    assert (void_files(), remove(ledger_id)) == ([], [])
    assert row(ledger_id).digest == FILE


def test_bytes_that_void_ledgers_share_are_gone_for_each_of_them(
    model_id: UUID, ready: Callable[..., UUID]
) -> None:
    both = [compute(model_id), compute(ready("other", ["x"], POLICY))]
    for each in both:
        void(each)
    assert {id_ for id_, _ in void_files()} == {each.claim.id for each in both}
    for each in both:
        assert remove(each.claim.id) == [FILE]  # the second time it is not there any more
        assert events(each.claim.id)[-1] == "ledger.removed"


def test_what_a_dead_worker_left_is_deleted_unless_it_is_the_same_file(model_id: UUID) -> None:
    ledger_id = begin(model_id)
    assert announce(claim(ledger_id)) == []
    die()
    assert announce(claim(ledger_id)) == []
    die()
    assert announce(claim(ledger_id), OTHER_FILE) == [FILE]
    assert row(ledger_id).digest == OTHER_FILE
    assert events(ledger_id).count("ledger.removed") == 1


def test_a_file_that_is_being_removed_is_not_announced_meanwhile(
    model_id: UUID, ready: Callable[..., UUID]
) -> None:
    claimed = compute(model_id)
    void(claimed)
    other = claim(begin(ready("other", ["x"], POLICY)))

    def impatient(digest: str) -> None:
        with transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '50ms'"))
            ledgers.announce(session, other, digest, pytest.fail)

    def meanwhile(digest: str) -> None:
        with pytest.raises(OperationalError, match="lock timeout"):
            impatient(digest)

    with transaction() as session:
        assert ledger_files.remove_file(session, claimed.claim.id, meanwhile)
    announce(other)
