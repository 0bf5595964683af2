"""Sets of references in the database: numbers, and what is forgotten meanwhile."""

import random
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.db import transaction
from app.derived import leasing, reference_losses, references
from app.derived.reference_losses import Losses, Moments
from app.errors import LeaseLost
from app.tables import (
    AuditEntry,
    HoldoutReferenceLoss,
    ReferenceLoss,
    ReferenceSet,
    RegisteredModel,
)
from tests.app.reference_sets import (
    DIGEST,
    LEASE,
    NONE,
    SAMPLES,
    claim,
    count,
    events,
    mark_forgotten,
    record,
    row,
)


def test_no_references_are_planned_where_none_are_wanted(ready: Callable[..., UUID]) -> None:
    model_id = ready(policy=NONE)
    with transaction() as session:
        version_id = session.get_one(RegisteredModel, model_id).current_version_id
        assert version_id is not None
        assert references.begin(session, model_id, version_id, 0) is None
        assert not references.is_building(session, model_id)
        assert references.status(session, [model_id]) == {}
    assert count(ReferenceSet) == 0


def test_a_model_has_one_set_in_use(planned: Callable[..., UUID]) -> None:
    first = row(planned())
    again = first.model_id, first.version_id, 4
    with pytest.raises(IntegrityError), transaction() as session:
        references.begin(session, *again)
    with transaction() as session:
        references.discard(session, first.model_id, "a test")
        second = references.begin(session, *again)
    assert second is not None
    with transaction() as session:
        assert references.status(session, [first.model_id])[first.model_id].id == second.id


def test_sets_draw_their_own_seeds(planned: Callable[..., UUID]) -> None:
    seeds = {row(planned(name)).seed for name in ("one", "two")}
    assert len(seeds) == 2
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_means_and_deviations_are_those_of_all_losses(
    planned: Callable[..., UUID],
    losses: Callable[..., Losses],
    digest: Callable[[str], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference_losses, "CHUNK", 2)
    set_id, drawn = planned(count=12), random.Random(0)  # noqa: S311  # made-up losses
    seen: dict[tuple[str, str | int], list[float]] = {}
    for index in range(12):
        group = "target" if index % 4 < 2 else "judge"
        of_training = {s: drawn.gauss(3, 2) for s in SAMPLES if drawn.random() < 0.5}
        of_holdout = {p: drawn.gauss(1e3, 1e-2) for p in range(5) if drawn.random() < 0.5}
        for key, value in {**of_training, **of_holdout}.items():
            seen.setdefault((group, key), []).append(value)
        record(claim(set_id), losses(of_training, of_holdout, group))

    with transaction() as session:
        asked = ["nobody", *reversed(SAMPLES)]
        training = reference_losses.losses_of(session, set_id, [digest(s) for s in asked])
        holdout = reference_losses.holdout_losses_of(session, set_id, [4, 2, 0, 1, 3, 9])

    def agrees(moments: Moments, group: str, keys: Sequence[str | int]) -> None:
        lists = [seen.get((group, key), []) for key in keys]
        assert moments.counts == [len(values) for values in lists]
        means = [statistics.fmean(values) if values else 0.0 for values in lists]
        assert moments.means == pytest.approx(means, rel=1e-12)
        squares = [statistics.pvariance(v) * len(v) if v else 0.0 for v in lists]
        assert moments.squares == pytest.approx(squares, rel=1e-6, abs=1e-12)

    assert max(len(values) for values in seen.values()) >= 4
    agrees(training.targets, "target", asked)
    agrees(training.judges, "judge", asked)
    agrees(holdout.targets, "target", [4, 2, 0, 1, 3, 9])
    agrees(holdout.judges, "judge", [4, 2, 0, 1, 3, 9])


def test_losses_whose_squares_no_double_can_hold_are_recorded(
    planned: Callable[..., UUID], losses: Callable[..., Losses], digest: Callable[[str], bytes]
) -> None:
    set_id = planned()
    record(claim(set_id), losses({"a": 1e-200, "b": 1e300, "c": -1e300}))
    record(claim(set_id), losses({"a": 3e-200, "b": 0.0, "c": 1e300}))
    with transaction() as session:
        found = reference_losses.losses_of(session, set_id, [digest("a")]).targets
    assert (found.counts, found.means, found.squares) == ([2], [0.0], [0.0])


def test_losses_without_their_records_are_refused(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    to_make, shown = claim(planned()), losses({"a": 1.0})
    broken = Losses("target", shown.digests, [1.0, 2.0], [], [], 1, DIGEST, 1.0)
    with pytest.raises(ValueError, match="2 losses for 1 records"):
        record(to_make, broken)


def test_a_complete_set_is_ready_and_each_destroyed_model_is_in_the_log(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    model_id = row(set_id).model_id
    for index in range(4):
        with transaction() as session:
            assert references.is_building(session, model_id)
            assert references.ready_set(session, model_id) is None
        group = "target" if index < 2 else "judge"
        assert record(claim(set_id), losses({"a": 1.0}, group=group)) is (index < 3)
    with transaction() as session:
        assert not references.is_building(session, model_id)
        assert references.ready_set(session, model_id) == set_id
        assert references.claim(session, set_id, LEASE) is None
        payloads = session.scalars(
            select(AuditEntry.payload)
            .where(AuditEntry.event == "reference.destroyed")
            .order_by(AuditEntry.id)
        ).all()
    assert row(set_id).finished_at is not None
    destroyed = ["reference.destroyed"] * 4
    assert events(set_id) == ["references.building", *destroyed, "references.ready"]
    for index, payload in enumerate(payloads):
        group = "target" if index < 2 else "judge"
        facts = f'{{"group":"{group}","index":{index},"records":3,"weights":"{DIGEST}"}}'
        assert f'"facts":{facts}' in payload


def test_a_sample_forgotten_since_the_claim_gets_no_numbers(
    planned: Callable[..., UUID], losses: Callable[..., Losses], digest: Callable[[str], bytes]
) -> None:
    set_id, other_id = planned(), planned("another")
    for id_ in (set_id, other_id):
        record(claim(id_), losses({"a": 1.0, "b": 1.0}, {0: 1.0}))
    to_make = claim(set_id)
    with transaction() as session:
        mark_forgotten(session, to_make.model_id, digest("a"))
    of_a = ReferenceLoss.sample_digest == digest("a")
    assert count(ReferenceLoss, of_a, ReferenceLoss.set_id == set_id) == 0
    record(to_make, losses({"a": 2.0, "b": 2.0, "c": 2.0}))
    assert count(ReferenceLoss, of_a, ReferenceLoss.set_id == set_id) == 0
    with transaction() as session:
        keys = [digest(sample) for sample in "abc"]
        assert reference_losses.losses_of(session, set_id, keys).targets.counts == [0, 2, 1]
        # Another model still holds the sample.
        assert reference_losses.losses_of(session, other_id, keys).targets.counts == [1, 1, 0]
    assert count(HoldoutReferenceLoss) == 2


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[Any], Any]], threading.Thread]]:
    """Run what needs a transaction in a thread; return once it waits for a lock of another one."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def start(act: Callable[[Any], Any]) -> threading.Thread:
        def run() -> None:
            try:
                with transaction() as session:
                    session.execute(text("SET LOCAL lock_timeout = '20ms'"))
                    act(session)
                    assert session.scalar(text("SHOW lock_timeout")) == "20ms"
            except BaseException as error:  # noqa: BLE001  # raised below, in the test's thread
                errors.append(error)

        thread = threading.Thread(target=run)
        threads.append(thread)
        thread.start()
        # Longer than the session's own patience, which must not count here.
        thread.join(timeout=0.1)
        assert thread.is_alive(), errors
        return thread

    yield start
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("first", ["record", "forget"])
def test_recording_and_forgetting_leave_no_row_in_either_order(
    planned: Callable[..., UUID],
    losses: Callable[..., Losses],
    digest: Callable[[str], bytes],
    in_thread: Callable[[Callable[[Any], Any]], threading.Thread],
    first: str,
) -> None:
    set_id = planned()
    to_make = claim(set_id)
    shown = losses({"a": 1.0, "b": 1.0})
    acts: dict[str, Callable[[Any], Any]] = {
        "record": lambda session: references.record(session, to_make, shown),
        "forget": lambda session: mark_forgotten(session, to_make.model_id, digest("a")),
    }
    with transaction() as session:
        acts[first](session)
        waits = in_thread(acts["forget" if first == "record" else "record"])
    waits.join()
    with transaction() as session:
        assert session.scalars(select(ReferenceLoss.sample_digest)).all() == [digest("b")]


def test_a_discarded_set_leaves_no_numbers_and_one_entry(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id, other_id = planned(), planned("another")
    for id_ in (set_id, other_id):
        record(claim(id_), losses({"a": 1.0}, {0: 1.0}))
    held = claim(set_id)
    for _ in range(2):
        with transaction() as session:
            references.discard(session, held.model_id, "an exact version was published")
    with pytest.raises(LeaseLost):
        record(held, losses({"a": 1.0}))
    assert row(set_id).status == "discarded"
    assert events(set_id)[-1] == "references.discarded"
    assert events(set_id).count("references.discarded") == 1
    with transaction() as session:
        assert session.scalars(select(ReferenceLoss.set_id)).all() == [other_id]
        assert session.scalars(select(HoldoutReferenceLoss.set_id)).all() == [other_id]
        assert leasing.waiting(session, ReferenceSet) == [other_id]
        assert references.ready_set(session, held.model_id) is None


def test_a_ready_set_is_discarded_too(
    planned: Callable[..., UUID], losses: Callable[..., Losses]
) -> None:
    set_id = planned()
    for _ in range(4):
        record(claim(set_id), losses({"a": 1.0}))
    finished_at = row(set_id).finished_at
    with transaction() as session:
        references.discard(session, row(set_id).model_id, "an exact version was published")
    assert (row(set_id).status, row(set_id).finished_at) == ("discarded", finished_at)
    assert count(ReferenceLoss) == 0


def test_each_model_shows_its_latest_set(planned: Callable[..., UUID]) -> None:
    sets = [row(planned(name)) for name in ("one", "two")]
    with transaction() as session:
        references.discard(session, sets[0].model_id, "a test")
        latest = references.begin(session, sets[0].model_id, sets[0].version_id, 8)
    assert latest is not None
    with transaction() as session:
        shown = references.status(session, [found.model_id for found in sets])
    assert {id_: found.id for id_, found in shown.items()} == {
        sets[0].model_id: latest.id,
        sets[1].model_id: sets[1].id,
    }
