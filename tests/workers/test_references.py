"""References say what models make of records they never saw, and no model is left behind."""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import select
from torch import Tensor

from app import lifecycle
from app.db import transaction
from app.derived import references
from app.settings import settings
from app.tables import (
    AuditEntry,
    HoldoutReferenceLoss,
    ManifestEntry,
    ReferenceLoss,
    RegisteredModel,
    UnlearningJob,
)
from tests.workers.reference_sets import PLANNED, SEED, Trainings, make_all, row, rows
from workers import references as making
from workers.artifacts import digest_of, dump_state
from workers.unlearning.references import half_of


@pytest.fixture
def digests(recipe: Any, digest: Callable[[str], bytes]) -> list[bytes]:
    return [digest(sample_id) for sample_id in recipe.ids]


def expected(set_id: UUID, forget: list[bytes], judging: list[int]) -> making.Expectations:
    with transaction() as session:
        return making.expected_for(session, set_id, forget, judging)


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
