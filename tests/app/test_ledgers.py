"""Whose turn a gradient ledger is, and what it is valid for."""

import hashlib
from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import lifecycle
from app.db import transaction
from app.deletions import planner
from app.derived import ledgers
from app.derived.ledgers import Kept, retained_fingerprint
from app.errors import LeaseLost
from app.jobs import leases, publication
from app.jobs.publication import NewVersion
from app.tables import ModelVersion, RegisteredModel
from tests.app.gradient_ledgers import (
    DATA,
    FILE,
    LEASE,
    OTHER_FILE,
    POLICY,
    RECIPE,
    announce,
    begin,
    claim,
    compute,
    die,
    events,
    finish,
    found,
    row,
    void,
    waiting,
)


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
