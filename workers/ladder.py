"""Climb a policy's ladder: unlearn, verify, keep the evidence, stop at the first that passes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor, nn

from app.artifacts import ArtifactStore
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from lethe.policy import MethodName
from lethe.recipe import CannotTrain, Recipe
from workers import failures
from workers.artifacts import Corrupted, load_state
from workers.data import Split, split
from workers.device import set_up_device
from workers.heartbeat import Heartbeat
from workers.recipes import find_recipe
from workers.unlearning.errors import Cancelled, UnlearningError
from workers.unlearning.method import Context, method_for
from workers.unlearning.verification import Measurement, measure, verify

log = structlog.get_logger()

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Climbed:
    """Every rung tried, and the weights of the last one if it passed."""

    rungs: tuple[Attempted, ...]
    state: State | None


@dataclass(frozen=True, slots=True)
class _Ground:
    # What every rung of one job starts from.
    job: Job
    recipe: Recipe
    parent: State
    data: Split
    before: Measurement
    device: torch.device


def climb(
    job: Job,
    id_key: bytes,
    store: ArtifactStore,
    heartbeat: Heartbeat,
    record: Callable[[Attempted], None],
) -> Climbed:
    """Try the policy's methods in turn; ``record`` gets each rung as soon as it is judged.

    Raises:
        Cancelled: the lease was lost meanwhile.
        UnknownRecipe, DataChanged, Corrupted: the job cannot be done as things are.

    """
    ground = _prepare(job, id_key, store, heartbeat)
    rungs: list[Attempted] = []
    for position, name in enumerate(job.policy.ladder):
        rung, state = _try(ground, position, name, heartbeat)
        if heartbeat.is_lost():
            raise Cancelled
        record(rung)
        rungs.append(rung)
        if rung.passed:
            return Climbed(tuple(rungs), state)
    return Climbed(tuple(rungs), None)


def _prepare(job: Job, id_key: bytes, store: ArtifactStore, heartbeat: Heartbeat) -> _Ground:
    heartbeat.report("load", 0.0)
    device = set_up_device()
    recipe = find_recipe(job.recipe)
    path = store.find(job.parent_digest)
    if path is None:
        raise Corrupted(f"the artifact store lacks {job.parent_digest}")
    parent = load_state(path, job.parent_digest)
    data = split(recipe, id_key, job.data_fingerprint, job.forget_digests, job.forgotten_digests)
    before = _measure(recipe, _load(recipe, parent, device), data, job)
    return _Ground(job, recipe, parent, data, before, device)


def _try(
    ground: _Ground, position: int, name: MethodName, heartbeat: Heartbeat
) -> tuple[Attempted, State | None]:
    job, recipe, data = ground.job, ground.recipe, ground.data
    started = time.monotonic()
    context = Context(
        recipe=recipe,
        seed=job.seed,
        device=ground.device,
        progress=lambda phase, fraction: heartbeat.report(phase, fraction),
        cancelled=heartbeat.is_lost,
    )
    method = method_for(name, job.policy.options)
    try:
        unlearned = method.unlearn(
            _load(recipe, ground.parent, ground.device),
            data.forget,
            data.retain,
            data.validation,
            context,
        )
    except (CannotTrain, UnlearningError) as error:
        if isinstance(error, Cancelled):
            raise
        # This method cannot do it; the next one may.
        evidence = {"error": failures.describe(error)}
        seconds = time.monotonic() - started
        return Attempted(position, name, None, False, None, evidence, seconds), None
    heartbeat.report(f"verify {name}", 0.0)
    seconds = time.monotonic() - started
    model = _load(recipe, unlearned.state, ground.device)
    after = _measure(recipe, model, data, job)
    verdict = verify(
        before_state=ground.parent,
        after_state=unlearned.state,
        before=ground.before,
        after=after,
        guarantee=unlearned.guarantee,
        bounds=job.policy.bounds,
    )
    return (
        Attempted(
            position=position,
            method=name,
            guarantee=unlearned.guarantee,
            passed=verdict.passed,
            verdict=verdict.to_json(),
            evidence={
                **unlearned.evidence,
                "before": ground.before.to_json(),
                "after": after.to_json(),
            },
            seconds=seconds,
        ),
        unlearned.state,
    )


def _measure(recipe: Recipe, model: nn.Module, data: Split, job: Job) -> Measurement:
    return measure(
        recipe, model, data.forget, data.retain, data.judging, job.policy.bounds.confidence
    )


def _load(recipe: Recipe, state: State, device: torch.device) -> nn.Module:
    model = recipe.build_model()
    model.load_state_dict(state)
    return model.to(device).eval()
