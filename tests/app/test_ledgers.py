"""Whose turn a gradient ledger is, what it is valid for, and that its file goes with it."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from app import lifecycle
from app.db import transaction
from app.deletions import planner
from app.derived import leasing, ledgers
from app.derived.ledgers import Kept, ToCompute, retained_fingerprint
from app.errors import LeaseLost
from app.jobs import leases, publication
from app.jobs.publication import NewVersion
from app.tables import AuditEntry, GradientLedger, ModelVersion, RegisteredModel
from lethe.policy import Batching, Policy, References

LEASE = timedelta(seconds=60)
# No method of the ladder wants a ledger, so that each one here is the test's own.
POLICY = Policy(
    batching=Batching(max_wait=timedelta(0)), ladder=("retrain",), references=References(count=0)
)
FILE = "sha256:" + "f" * 64
OTHER_FILE = "sha256:" + "e" * 64
DATA = "sha256:" + "d" * 64
RECIPE = "sha256:" + "c" * 64


def begin(model_id: UUID) -> UUID:
    with transaction() as session:
        version_id = session.get_one(RegisteredModel, model_id).current_version_id
        assert version_id is not None
        return ledgers.begin(session, model_id, version_id).id


def claim(ledger_id: UUID) -> ToCompute:
    with transaction() as session:
        claimed = ledgers.claim(session, ledger_id, LEASE)
    assert claimed is not None
    return claimed


def announce(claimed: ToCompute, digest: str = FILE) -> list[str]:
    deleted: list[str] = []
    with transaction() as session:
        ledgers.announce(session, claimed, digest, deleted.append)
    return deleted


def finish(claimed: ToCompute, digest: str = FILE) -> None:
    with transaction() as session:
        ledgers.finish(session, claimed, digest, 4, RECIPE, DATA, 1.5)


def compute(model_id: UUID, digest: str = FILE) -> ToCompute:
    claimed = claim(begin(model_id))
    finish(claimed, digest)
    return claimed


def void(claimed: ToCompute) -> None:
    with transaction() as session:
        assert ledgers.void(session, claimed.version_id, "test") is not None


def die() -> None:
    """Let every lease run out, as those of dead workers do."""
    with transaction() as session:
        session.execute(
            update(GradientLedger).values(lease_expires_at=text("now() - interval '1 second'"))
        )


def row(ledger_id: UUID) -> GradientLedger:
    with transaction() as session:
        return session.get_one(GradientLedger, ledger_id)


def found(claimed: ToCompute) -> Kept | None:
    with transaction() as session:
        return ledgers.find(session, claimed.version_id)


def waiting() -> list[UUID]:
    with transaction() as session:
        return leasing.waiting(session, GradientLedger)


def void_files() -> list[tuple[UUID, str]]:
    with transaction() as session:
        return ledgers.void_files(session)


def remove(ledger_id: UUID) -> list[str]:
    """Remove a ledger's file and return what was deleted."""
    deleted: list[str] = []
    with transaction() as session:
        told = ledgers.remove_file(session, ledger_id, deleted.append)
    assert told == bool(deleted)
    return deleted


def events(subject: UUID) -> list[str]:
    with transaction() as session:
        statement = select(AuditEntry.event).where(AuditEntry.subject == subject)
        return list(session.scalars(statement.order_by(AuditEntry.id)))


@pytest.fixture
def model_id(ready: Callable[..., UUID]) -> UUID:
    """A model trained on `a` to `d`, with its first version."""
    return ready(samples=["a", "b", "c", "d"], policy=POLICY)


@pytest.fixture
def forget(client: TestClient) -> Callable[..., None]:
    """Forget samples by one job that publishes a version."""

    def make(*samples: str) -> None:
        client.post("/v1/deletion-requests", json={"sample_ids": samples})
        with transaction() as session:
            (job_id,) = planner.plan(session)
            job = leases.claim(session, job_id, "test", LEASE)
        assert job is not None
        new = NewVersion("sha256:" + job.id.hex * 2, 1, "any", "approximate", "passed", 0.0)
        with transaction() as session:
            publication.publish(session, job, new, [])

    return make


def test_a_worker_learns_the_weights_and_data_that_it_is_to_sum_over(
    model_id: UUID, forget: Callable[..., None], digest: Callable[[str], bytes]
) -> None:
    first = claim(begin(model_id))
    forget("a", "b")
    second = claim(begin(model_id))
    with transaction() as session:
        model = session.get_one(RegisteredModel, model_id)
        weights = {v.id: v.digest for v in session.scalars(select(ModelVersion))}
    assert second.version_id == model.current_version_id != first.version_id
    assert [each.weights_digest for each in (first, second)] == [
        weights[first.version_id],
        weights[second.version_id],
    ]
    assert (first.forgotten, second.forgotten) == (frozenset(), {digest("a"), digest("b")})
    assert (second.model_id, second.recipe) == (model_id, "digits")
    assert (second.data_fingerprint, second.id_key_id) == (model.data_fingerprint, model.id_key_id)


def test_a_ledger_is_worked_on_by_one_worker_at_a_time(model_id: UUID) -> None:
    ledger_id = begin(model_id)
    assert waiting() == [ledger_id]
    claim(ledger_id)
    assert waiting() == []
    with transaction() as session:
        assert ledgers.claim(session, ledger_id, LEASE) is None


def test_a_worker_that_died_is_replaced_and_cannot_come_back(model_id: UUID) -> None:
    ledger_id = begin(model_id)
    dead = claim(ledger_id)
    die()
    assert waiting() == [ledger_id]
    alive = claim(ledger_id)
    assert (alive.claim.fence, alive.claim.attempt) == (2, 2)
    for act in (
        lambda session: ledgers.hold(session, dead, LEASE),
        lambda session: ledgers.announce(session, dead, OTHER_FILE, pytest.fail),
        lambda session: ledgers.finish(session, dead, OTHER_FILE, 9, RECIPE, DATA, 1.0),
        lambda session: ledgers.give_back(session, dead, "late", 5),
        lambda session: ledgers.fail(session, dead, "late"),
    ):
        with pytest.raises(LeaseLost), transaction() as session:
            act(session)
    assert (row(ledger_id).digest, row(ledger_id).error) == (None, None)
    with transaction() as session:
        ledgers.hold(session, alive, LEASE)
    finish(alive)
    assert row(ledger_id).status == "ready"


def test_a_ready_ledger_says_what_it_is_valid_for(model_id: UUID) -> None:
    claimed = claim(begin(model_id))
    announce(claimed)
    assert found(claimed) is None
    finish(claimed)
    assert found(claimed) == Kept(FILE, claimed.weights_digest, DATA, RECIPE, 4)
    assert row(claimed.claim.id).lease_expires_at is None
    assert events(claimed.claim.id) == ["ledger.computing", "ledger.ready"]


def test_a_publication_voids_the_ledger_of_the_parent(
    model_id: UUID, forget: Callable[..., None]
) -> None:
    claimed = compute(model_id)
    assert found(claimed) is not None
    forget("a")
    assert found(claimed) is None
    assert row(claimed.claim.id).status == "void"
    assert events(claimed.claim.id)[-1] == "ledger.void"


def test_a_ledger_is_void_for_good_however_far_it_was(
    ready: Callable[..., UUID], model_id: UUID
) -> None:
    computing = claim(begin(model_id))
    failed = claim(begin(ready("other", ["x"], POLICY)))
    with transaction() as session:
        ledgers.fail(session, failed, "no reason")
    for claimed in (computing, failed):
        void(claimed)
        before = events(claimed.claim.id)
        with transaction() as session:
            assert ledgers.void(session, claimed.version_id, "again") is None
        with pytest.raises(LeaseLost):
            finish(claimed)
        assert row(claimed.claim.id).status == "void"
        assert events(claimed.claim.id) == before
    assert waiting() == []
    with transaction() as session:
        assert ledgers.void(session, model_id, "no such version") is None


def test_the_ledger_of_a_version_that_is_not_current_is_void_when_claimed(model_id: UUID) -> None:
    ledger_id = begin(model_id)
    with transaction() as session:
        lifecycle.move_one(session, ModelVersion, row(ledger_id).version_id, "withdrawn")
    with transaction() as session:
        assert ledgers.claim(session, ledger_id, LEASE) is None
    assert row(ledger_id).status == "void"
    assert waiting() == []


def test_a_passing_error_leaves_the_ledger_to_the_next_until_attempts_are_used_up(
    model_id: UUID, ready: Callable[..., UUID]
) -> None:
    ledger_id = begin(ready("other", ["x"], POLICY))
    with transaction() as session:
        ledgers.give_back(session, claim(ledger_id), "the disk is full", attempts=3)
    finish(claim(ledger_id))
    assert (row(ledger_id).status, row(ledger_id).error) == ("ready", None)
    ledger_id = begin(model_id)
    for _ in range(2):
        with transaction() as session:
            ledgers.give_back(session, claim(ledger_id), "the disk is full", attempts=3)
        assert (row(ledger_id).status, row(ledger_id).error) == ("computing", "the disk is full")
        assert waiting() == [ledger_id]
    with transaction() as session:
        ledgers.give_back(session, claim(ledger_id), "the disk is full", attempts=3)
    assert row(ledger_id).status == "failed"
    assert row(ledger_id).error == "gave up after 3 attempts: the disk is full"
    assert waiting() == []


def test_a_fingerprint_of_retained_data_changes_with_every_forgotten_sample() -> None:
    one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    forgotten: list[set[bytes]] = [set(), {one}, {two}, {one, two}]
    prints = [retained_fingerprint(data, gone) for data in (DATA, RECIPE) for gone in forgotten]
    assert len({DATA, RECIPE, *prints}) == 10
    assert retained_fingerprint(DATA, [two, one]) == retained_fingerprint(DATA, [one, two])
    expected = b"lethe retained data\0" + DATA.encode() + b"\0" + min(one, two) + max(one, two)
    assert prints[3] == "sha256:" + hashlib.sha256(expected).hexdigest()


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
        ledgers.remove_file(session, claimed.claim.id, fail)
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
        assert ledgers.remove_file(session, claimed.claim.id, meanwhile)
    announce(other)
