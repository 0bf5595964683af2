"""Sets of references in the database: numbers, claims, and what is forgotten meanwhile."""

import random
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from app import lifecycle
from app.db import transaction
from app.derived import leasing, reference_losses, references
from app.derived.reference_losses import Losses, Moments
from app.derived.references import ToMake
from app.errors import LeaseLost
from app.tables import (
    AuditEntry,
    HoldoutReferenceLoss,
    ManifestEntry,
    ReferenceLoss,
    ReferenceSet,
    RegisteredModel,
    UnlearningJob,
)
from lethe.policy import Policy, References

LEASE = timedelta(seconds=60)
NONE = Policy(references=References(count=0))
SAMPLES = tuple("abcdef")
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def planned(ready: Callable[..., UUID]) -> Callable[..., UUID]:
    """Plan references for a model that was trained on the samples; returns their set."""

    def make(name: str = "digits", count: int = 4, samples: Sequence[str] = SAMPLES) -> UUID:
        model_id = ready(name, samples, NONE)
        with transaction() as session:
            version_id = session.get_one(RegisteredModel, model_id).current_version_id
            assert version_id is not None
            begun = references.begin(session, model_id, version_id, count)
        assert begun is not None
        return begun.id

    return make


@pytest.fixture
def losses(digest: Callable[[str], bytes]) -> Callable[..., Losses]:
    """What a reference showed on samples and on holdout records."""

    def make(
        training: dict[str, float], holdout: dict[int, float] | None = None, group: str = "target"
    ) -> Losses:
        of_holdout = holdout or {}
        return Losses(
            group=group,  # type: ignore[arg-type]
            digests=[digest(sample) for sample in training],
            training=list(training.values()),
            positions=list(of_holdout),
            holdout=list(of_holdout.values()),
            records=3,
            weights_digest=DIGEST,
            seconds=1.5,
        )

    return make


def claim(set_id: UUID) -> ToMake:
    with transaction() as session:
        to_make = references.claim(session, set_id, LEASE)
    assert to_make is not None
    return to_make


def record(to_make: ToMake, shown: Losses) -> bool:
    with transaction() as session:
        return references.record(session, to_make, shown)


def row(set_id: UUID) -> ReferenceSet:
    with transaction() as session:
        return session.get_one(ReferenceSet, set_id)


def count(table: type[Any], *conditions: Any) -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


def events(set_id: UUID) -> list[str]:
    with transaction() as session:
        entries = select(AuditEntry.event).where(AuditEntry.subject == set_id)
        return list(session.scalars(entries.order_by(AuditEntry.id)))


def expire(set_id: UUID) -> None:
    with transaction() as session:
        session.execute(
            update(ReferenceSet)
            .where(ReferenceSet.id == set_id)
            .values(lease_expires_at=text("now() - interval '1s'"))
        )


def mark_forgotten(session: Any, model_id: UUID, sample_digest: bytes) -> None:
    """Do what publishing does to the manifest and to the references."""
    parent_id = session.get_one(RegisteredModel, model_id).current_version_id
    job = lifecycle.begin(
        session,
        UnlearningJob(
            model_id=model_id, parent_version_id=parent_id, policy={}, seed=0, sample_count=1
        ),
        {},
    )
    session.execute(
        update(ManifestEntry)
        .where(ManifestEntry.model_id == model_id, ManifestEntry.sample_digest == sample_digest)
        .values(forgotten_by_job_id=job.id)
    )
    forgotten = select(ManifestEntry.sample_digest).where(
        ManifestEntry.forgotten_by_job_id == job.id
    )
    references.forget(session, model_id, forgotten)


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
