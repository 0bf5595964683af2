"""One worker at a time makes a reference, and one that lost its claim writes nothing."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from app.db import transaction
from app.derived import leasing, reference_losses, references
from app.derived.reference_losses import Losses
from app.errors import LeaseLost
from app.tables import HoldoutReferenceLoss, ReferenceLoss, ReferenceSet, RegisteredModel
from tests.app.reference_sets import (
    LEASE,
    claim,
    count,
    events,
    expire,
    mark_forgotten,
    record,
    row,
)


def test_a_claim_knows_all_that_a_worker_needs(
    planned: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    set_id = planned()
    begun = row(set_id)
    with transaction() as session:
        model = session.get_one(RegisteredModel, begun.model_id)
        mark_forgotten(session, model.id, digest("b"))
    other_id = row(planned("another")).model_id
    with transaction() as session:
        mark_forgotten(session, other_id, digest("c"))
    to_make = claim(set_id)
    assert to_make.claim == leasing.Claim(set_id, fence=1, attempt=1)
    assert (to_make.index, to_make.planned, to_make.seed) == (0, 4, begun.seed)
    assert (to_make.model_id, to_make.recipe) == (model.id, "digits")
    assert to_make.data_fingerprint == model.data_fingerprint
    assert to_make.id_key_id == model.id_key_id
    assert to_make.forgotten_digests == {digest("b")}
    with transaction() as session:
        assert references.claim(session, set_id, LEASE) is None
        assert references.claim(session, uuid4(), LEASE) is None


def test_a_recorded_reference_makes_way_for_the_next(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    with transaction() as session:
        assert leasing.waiting(session, ReferenceSet) == [set_id]
    to_make = claim(set_id)
    with transaction() as session:
        assert leasing.waiting(session, ReferenceSet) == []
    assert record(to_make, losses({"a": 1.0})) is True
    with transaction() as session:
        assert leasing.waiting(session, ReferenceSet) == [set_id]
    following = claim(set_id)
    assert (following.index, following.claim.attempt) == (1, 1)
    assert (row(set_id).done, row(set_id).seconds) == (1, 1.5)


def test_a_claim_is_used_up_by_recording(
    planned: Callable[..., UUID], losses: Callable[..., Losses], digest: Callable[[str], bytes]
) -> None:
    set_id = planned()
    to_make = claim(set_id)
    record(to_make, losses({"a": 1.0}))
    with pytest.raises(LeaseLost):
        record(to_make, losses({"a": 1.0}))
    # A heartbeat that comes late must not keep the next worker out.
    with pytest.raises(LeaseLost), transaction() as session:
        references.hold(session, to_make, LEASE)
    assert claim(set_id).index == 1
    with transaction() as session:
        assert reference_losses.losses_of(session, set_id, [digest("a")]).targets.counts == [1]


def test_a_stolen_claim_can_write_nothing(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    stale = claim(set_id)
    expire(set_id)
    thief = claim(set_id)
    assert (thief.index, thief.claim.attempt) == (0, 2)
    for act in (
        lambda session: references.record(session, stale, losses({"a": 1.0}, {0: 1.0})),
        lambda session: references.hold(session, stale, LEASE),
        lambda session: references.give_back(session, stale, "x", 5),
        lambda session: references.fail(session, stale, "x"),
    ):
        with pytest.raises(LeaseLost), transaction() as session:
            act(session)
    assert (count(ReferenceLoss), count(HoldoutReferenceLoss)) == (0, 0)
    assert events(set_id) == ["references.building"]
    assert record(thief, losses({"a": 1.0})) is True


def test_a_claim_that_is_held_does_not_run_out(planned: Callable[..., UUID]) -> None:
    set_id = planned()
    to_make = claim(set_id)
    expire(set_id)
    with transaction() as session:
        references.hold(session, to_make, LEASE)
        assert leasing.waiting(session, ReferenceSet) == []


def test_a_reference_that_failed_is_tried_again_and_then_no_more(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    record(claim(set_id), losses({"a": 1.0}, {0: 1.0}))
    for attempt in (1, 2):
        to_make = claim(set_id)
        assert (to_make.index, to_make.claim.attempt) == (1, attempt)
        with transaction() as session:
            references.give_back(session, to_make, f"OSError in x.py:{attempt}", attempts=2)
        assert f"x.py:{attempt}" in (row(set_id).error or "")
    assert row(set_id).status == "failed"
    assert (row(set_id).error or "").startswith("Gave up after 2 attempts")
    assert (count(ReferenceLoss), count(HoldoutReferenceLoss)) == (0, 0)
    with transaction() as session:
        assert not references.is_building(session, to_make.model_id)
        assert references.ready_set(session, to_make.model_id) is None
        assert references.claim(session, set_id, LEASE) is None
    assert events(set_id)[-1] == "references.failed"


def test_a_success_gives_the_next_reference_all_its_attempts(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    with transaction() as session:
        to_make = references.claim(session, set_id, LEASE)
        assert to_make is not None
        references.give_back(session, to_make, "OSError in x.py:1", attempts=2)
    record(claim(set_id), losses({"a": 1.0}))
    assert row(set_id).error is None
    assert claim(set_id).claim.attempt == 1
