"""Making references: one at a time, again after a crash, and never a model left behind."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import torch
from sqlalchemy import select, text, update
from torch import Tensor, nn

from app import lifecycle
from app.db import transaction
from app.derived import leasing, references
from app.settings import settings
from app.tables import (
    AuditEntry,
    HoldoutReferenceLoss,
    ManifestEntry,
    ReferenceLoss,
    ReferenceSet,
    RegisteredModel,
    UnlearningJob,
)
from lethe.recipe import CannotTrain, Recipe
from workers import references as making
from workers.artifacts import digest_of, dump_state
from workers.heartbeat import Heartbeat
from workers.recipes import UnknownRecipe
from workers.unlearning.references import half_of

PLANNED = 8
SEED = 2024


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the worker may catch it."""


@dataclass
class Trainings:
    """What the recipe's trainings were given, and what came out of them."""

    seen: list[list[int]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)


@pytest.fixture
def trainings(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    noted, train = Trainings(), recipe.train

    def spy(model: nn.Module, dataset: Any, seed: int) -> None:
        noted.seen.append(list(dataset.indices))
        train(model, dataset, seed)
        noted.states.append({k: v.detach().clone() for k, v in model.state_dict().items()})

    monkeypatch.setattr(recipe, "train", spy)
    return noted


@pytest.fixture
def plan(serve: Callable[..., UUID]) -> Callable[..., UUID]:
    """Plan references for the tiny recipe's model, which is registered once; returns their set."""
    served: list[UUID] = []

    def make(count: int = PLANNED) -> UUID:
        served.extend([] if served else [serve()])
        with transaction() as session:
            references.discard(session, served[0], "a test wants new ones")
            version_id = session.get_one(RegisteredModel, served[0]).current_version_id
            assert version_id is not None
            begun = references.begin(session, served[0], version_id, count, SEED)
        assert begun is not None
        return begun.id

    return make


@pytest.fixture
def digests(recipe: Any, digest: Callable[[str], bytes]) -> list[bytes]:
    return [digest(sample_id) for sample_id in recipe.ids]


def make_all(set_id: UUID) -> int:
    made = 1
    while making.make_reference(set_id):
        made += 1
    return made


def row(set_id: UUID) -> ReferenceSet:
    with transaction() as session:
        return session.get_one(ReferenceSet, set_id)


def rows(set_id: UUID) -> list[tuple[Any, ...]]:
    """Return all numbers of a set."""
    found: list[tuple[Any, ...]] = []
    with transaction() as session:
        for table in (ReferenceLoss, HoldoutReferenceLoss):
            columns = [column for column in table.__table__.c if column.name != "set_id"]
            of_set = select(*columns).where(table.set_id == set_id).order_by(columns[0])
            found += [tuple(found_row) for found_row in session.execute(of_set)]
    return found


def expected(set_id: UUID, forget: list[bytes], judging: list[int]) -> making.Expectations:
    with transaction() as session:
        return making.expected_for(session, set_id, forget, judging)


def expire(set_id: UUID) -> None:
    with transaction() as session:
        session.execute(
            update(ReferenceSet)
            .where(ReferenceSet.id == set_id)
            .values(lease_expires_at=text("now() - interval '1s'"))
        )


def forget(model_id: UUID, sample_digest: bytes) -> None:
    """Do what publishing does to the manifest and to the references."""
    with transaction() as session:
        model = session.get_one(RegisteredModel, model_id)
        job = UnlearningJob(
            model_id=model_id,
            parent_version_id=model.current_version_id,
            policy={},
            seed=0,
            sample_count=1,
        )
        lifecycle.begin(session, job, {})
        entry = session.get_one(ManifestEntry, (model_id, sample_digest))
        entry.forgotten_by_job_id = job.id
        session.flush()
        gone = select(ManifestEntry.sample_digest).where(
            ManifestEntry.forgotten_by_job_id == job.id
        )
        references.forget(session, model_id, gone)


def stored_files() -> set[Path]:
    return {path for path in settings().artifacts_folder.rglob("*") if path.is_file()}


def loss_of(recipe: Any, state: dict[str, Tensor], item: tuple[Tensor, Tensor]) -> float:
    model = recipe.build_model()
    model.load_state_dict(state)
    logits = model(item[0]).detach().double().tolist()
    # −log softmax, by hand.
    return math.log(sum(math.exp(logit) for logit in logits)) - logits[int(item[1])]


def test_expectations_are_those_of_the_models_that_never_saw_a_record(
    plan: Callable[..., UUID], recipe: Any, trainings: Trainings, digests: list[bytes]
) -> None:
    set_id = plan()
    before = stored_files()
    assert make_all(set_id) == PLANNED
    assert row(set_id).status == "ready"
    assert stored_files() == before
    forgotten, judging = [50, 3, 119], [7, 0, 399]
    found = expected(set_id, [digests[i] for i in forgotten], judging)

    training, holdout = recipe.training_data(), recipe.holdout_data()
    everything = list(range(len(digests)))
    counted = [
        set(half_of(SEED, index, everything, len(training), len(holdout)).holdout)
        for index in range(PLANNED)
    ]
    for at, i in enumerate(forgotten):
        unseen = [j for j in range(PLANNED) if i not in trainings.seen[j]]
        losses = {j: loss_of(recipe, trainings.states[j], training[i]) for j in unseen}
        targets = [loss for j, loss in losses.items() if j in (0, 1, 4, 5)]
        judges = [loss for j, loss in losses.items() if j in (2, 3, 6, 7)]
        assert len(targets) == len(judges) == PLANNED // 4
        assert found.targets[at].item() == pytest.approx(statistics.fmean(targets), rel=1e-5)
        of = found.judges.forgotten
        assert of.mean[at].item() == pytest.approx(statistics.fmean(judges), rel=1e-5)
        assert of.spread[at].item() == pytest.approx(statistics.stdev(judges), rel=1e-3)
    for at, i in enumerate(judging):
        judges = [
            loss_of(recipe, trainings.states[j], holdout[i])
            for j in (2, 3, 6, 7)
            if i in counted[j]
        ]
        assert len(judges) == PLANNED // 4
        of = found.judges.unseen
        assert of.mean[at].item() == pytest.approx(statistics.fmean(judges), rel=1e-5)
        assert of.spread[at].item() == pytest.approx(statistics.stdev(judges), rel=1e-3)
    assert found.targets.dtype == torch.float64


def test_every_record_is_unseen_by_as_many_references_of_either_group(
    plan: Callable[..., UUID], recipe: Any, trainings: Trainings, digests: list[bytes]
) -> None:
    set_id = plan(4)
    make_all(set_id)
    everything = set(range(len(digests)))
    for one, other in zip(trainings.seen[::2], trainings.seen[1::2], strict=True):
        assert set(one) | set(other) == everything
        assert set(one).isdisjoint(other)
    with transaction() as session:
        for table, size in ((ReferenceLoss, len(digests)), (HoldoutReferenceLoss, 400)):
            counts = session.execute(
                select(table.target_count, table.judge_count).where(table.set_id == set_id)
            ).all()
            assert [tuple(found) for found in counts] == [(1, 1)] * size


def test_the_log_names_every_model_that_was_destroyed(
    plan: Callable[..., UUID], trainings: Trainings
) -> None:
    set_id = plan(4)
    make_all(set_id)
    with transaction() as session:
        entries = session.scalars(
            select(AuditEntry.payload)
            .where(AuditEntry.subject == set_id, AuditEntry.event == "reference.destroyed")
            .order_by(AuditEntry.id)
        ).all()
    weights = [digest_of(dump_state(state)) for state in trainings.states]
    assert len(set(weights)) == len(entries) == 4
    for index, payload in enumerate(entries):
        assert f'"index":{index},"records":60,"weights":"{weights[index]}"' in payload


def test_a_set_that_was_interrupted_ends_with_the_numbers_of_one_that_was_not(
    plan: Callable[..., UUID], recipe: Any, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = plan(4)
    make_all(smooth)
    numbers = rows(smooth)
    set_id = plan(4)
    assert making.make_reference(set_id)
    for owner, name in ((recipe, "losses"), (references, "record")):
        with monkeypatch.context() as patch:

            def die(*_: Any) -> None:
                raise Killed

            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                making.make_reference(set_id)
        assert not making.make_reference(set_id)  # while the dead worker's lease lasts
        expire(set_id)
    assert row(set_id).done == 1
    assert make_all(set_id) == 3
    assert trainings.seen[5:8] == [trainings.seen[1]] * 3
    assert len(numbers) == 520
    assert rows(set_id) == numbers


def test_a_worker_whose_claim_was_stolen_records_nothing(
    plan: Callable[..., UUID], recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id, train = plan(4), recipe.train

    def stall(*args: Any) -> None:
        # While this worker trains, its lease runs out and another one takes the set.
        expire(set_id)
        with transaction() as session:
            assert references.claim(session, set_id, settings().lease) is not None
        train(*args)

    monkeypatch.setattr(recipe, "train", stall)
    assert making.make_reference(set_id) is False
    assert rows(set_id) == []
    found = row(set_id)
    assert (found.status, found.done, found.fence, found.error) == ("building", 0, 2, None)


def test_a_worker_that_lost_the_database_leaves_the_reference_to_another(
    plan: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = plan(4)
    with monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "is_lost", lambda _: True)
        assert making.make_reference(set_id) is False
    assert (row(set_id).status, row(set_id).error) == ("building", None)
    expire(set_id)
    assert making.make_reference(set_id) is True


def test_a_lease_is_held_for_as_long_as_training_takes(
    plan: Callable[..., UUID],
    recipe: Any,
    reread: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread("LETHE_LEASE", "1")
    set_id, train = plan(4), recipe.train

    def long(*args: Any) -> None:
        claimed, deadline = row(set_id).lease_expires_at, time.monotonic() + 20
        while row(set_id).lease_expires_at == claimed:
            assert time.monotonic() < deadline
        train(*args)

    monkeypatch.setattr(recipe, "train", long)
    assert making.make_reference(set_id) is True


def test_a_sample_forgotten_meanwhile_has_no_numbers_and_moves_nobody_elses(
    plan: Callable[..., UUID],
    recipe: Any,
    trainings: Trainings,
    digests: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = len(digests)
    whole = [half_of(SEED, index, range(records), records, 400).trained_on for index in range(4)]
    set_id, lost = plan(4), whole[1][0]  # the first reference leaves this one out
    spied = recipe.train

    def forget_first(*args: Any) -> None:
        if not trainings.seen:
            forget(row(set_id).model_id, digests[lost])
        spied(*args)

    monkeypatch.setattr(recipe, "train", forget_first)
    make_all(set_id)
    kept = {found[0] for found in rows(set_id)}
    assert digests[lost] not in kept
    assert set(digests) - kept == {digests[lost]}
    assert trainings.seen == [[i for i in half if i != lost] for half in whole]
    found = expected(set_id, [digests[lost], digests[lost + 1]], [])
    assert found.targets.isnan().tolist() == [True, False]
    assert found.judges.forgotten.mean.isnan().tolist() == [True, False]


def test_nothing_is_expected_of_records_without_numbers(
    plan: Callable[..., UUID], digests: list[bytes]
) -> None:
    found = expected(plan(4), digests[:2], [0, 1, 2])
    assert found.targets.isnan().all()
    assert found.judges.forgotten.spread.isnan().all()
    assert found.judges.unseen.mean.shape == (3,)
    assert found.judges.unseen.mean.isnan().all()


def change_order(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    recipe.ids = recipe.ids[::-1]


def change_key(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(making, "key_id", lambda _: "k-other")


def uninstall(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Recipe:
        raise UnknownRecipe("recipe.unknown", "no recipe of this name")

    patch.setattr(making, "find_recipe", find)


def lose_train(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise CannotTrain("person-7")

    patch.setattr(recipe, "train", refuse)


def diverge(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recipe, "losses", lambda model, batch: torch.full((len(batch[1]),), math.inf))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change_order, "register the model anew"),
        (change_key, "LETHE_ID_KEY"),
        (uninstall, "UnknownRecipe"),
        (lose_train, "CannotTrain"),
        (diverge, "not finite"),
    ],
)
def test_what_another_attempt_would_meet_again_fails_the_set_at_once(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Any, pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    set_id = plan(4)
    assert making.make_reference(set_id) is True
    spoil(recipe, monkeypatch)
    assert making.make_reference(set_id) is False
    found = row(set_id)
    assert found.status == "failed"
    assert reason in (found.error or "")
    assert "person-" not in (found.error or "")
    assert rows(set_id) == []


def test_a_passing_error_is_tried_again_and_never_quoted(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    set_id = plan(4)

    def fail(*_: Any) -> None:
        raise KeyError("person-7")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "train", fail)
        assert making.make_reference(set_id) is False
    found = row(set_id)
    assert found.status == "building"
    assert "KeyError" in (found.error or "")
    assert "person-7" not in (found.error or "") + "".join(capfd.readouterr())
    with transaction() as session:
        assert leasing.waiting(session, ReferenceSet) == [set_id]
    assert making.make_reference(set_id) is True
    assert row(set_id).error is None


def test_a_set_fails_when_its_attempts_are_used_up(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    set_id = plan(4)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recipe, "train", fail)
    statuses = []
    for _ in range(3):
        making.make_reference(set_id)
        statuses.append(row(set_id).status)
    assert statuses == ["building", "failed", "failed"]
    assert row(set_id).attempts == 2


def test_a_set_whose_workers_all_die_is_given_up(
    plan: Callable[..., UUID], trainings: Trainings, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    set_id = plan(4)
    for _ in range(2):
        with transaction() as session:
            assert references.claim(session, set_id, settings().lease) is not None
        expire(set_id)
    assert making.make_reference(set_id) is False
    assert row(set_id).status == "failed"
    assert "died" in (row(set_id).error or "")
    assert trainings.seen == []


def test_a_set_that_waits_for_nothing_is_left_alone(
    plan: Callable[..., UUID], trainings: Trainings
) -> None:
    set_id = plan(4)
    make_all(set_id)
    trained = len(trainings.seen)
    assert making.make_reference(set_id) is False
    assert making.make_reference(uuid4()) is False
    assert len(trainings.seen) == trained
