"""Climb a policy's ladder: unlearn, verify, keep the evidence, stop where the policy says so."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from app.artifacts import ArtifactStore
from app.errors import LeaseLost
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from app.jobs.records import Record
from app.statuses import RungOutcome
from lethe.policy import MethodName, Verdicts
from lethe.recipe import CannotTrain
from workers import failures
from workers.ground import Ground, State, prepare
from workers.records import record_of
from workers.unlearning.contract import Unlearned
from workers.unlearning.errors import Cancelled, UnlearningError
from workers.unlearning.method import Context, method_for
from workers.unlearning.verification import verify
from workers.unlearning.weights import distance

# What may be gone at another attempt; everything else a method would meet again.
PASSING = (Cancelled, LeaseLost, OSError, MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True, slots=True)
class Climbed:
    """Every rung tried, and the weights of the last one if they are to be published."""

    rungs: tuple[Attempted, ...]
    state: State | None
    drift: float = 0.0
    """Relative L2 distance of these weights from the parent's."""
    record: Record | None = None
    """What it takes to repeat the last rung."""


class Watch(Protocol):
    """Who hears how far the work is, and may call it off."""

    def report(self, phase: str, fraction: float) -> None:
        """Note the phase, and the fraction of it that is done."""

    def is_lost(self) -> bool:
        """Tell whether nobody wants the outcome any more."""


def climb(
    job: Job,
    id_key: bytes,
    store: ArtifactStore,
    heartbeat: Watch,
    record: Callable[[Attempted], None],
) -> Climbed:
    """Try the policy's methods in turn; ``record`` gets each rung as soon as it is judged.

    Raises:
        Cancelled: the lease was lost meanwhile.
        UnknownRecipe, DataChanged, Corrupted: the job cannot be done as things are.
        Exception: whatever else stopped a method, if no other one gave a version.

    """
    heartbeat.report("load", 0.0)
    ground = prepare(job, id_key, store)
    rungs: list[Attempted] = []
    unforeseen: Exception | None = None
    for position, name in enumerate(job.ladder):
        rung, state, error = _try(ground, position, name, heartbeat)
        unforeseen = error or unforeseen
        if heartbeat.is_lost():
            raise Cancelled
        record(rung)
        rungs.append(rung)
        follows = what_follows(rung.outcome, job.policy.verdicts)
        if follows == "publish" and state is not None:
            drift = _drift(ground, state)
            return Climbed(tuple(rungs), state, drift, record_of(ground, rung))
        if follows == "stop":
            break
    if unforeseen is not None:
        # Nothing came of it; what no method foresees may be gone at another attempt.
        raise unforeseen
    return Climbed(tuple(rungs), None)


def what_follows(outcome: RungOutcome, verdicts: Verdicts) -> str:
    """Return what a policy does after this outcome: publish, climb or stop.

    What failed is never published, whatever a policy says.
    """
    if outcome == RungOutcome.PASSED:
        return "publish"
    if outcome == RungOutcome.INCONCLUSIVE:
        return verdicts.inconclusive
    return verdicts.failed if outcome == RungOutcome.FAILED else "climb"


def _try(
    ground: Ground, position: int, name: MethodName, heartbeat: Watch
) -> tuple[Attempted, State | None, Exception | None]:
    started = time.monotonic()
    try:
        unlearned = unlearn(ground, name, heartbeat)
    except PASSING:
        raise
    except Exception as error:  # noqa: BLE001  # the recipe's code runs in there, too
        # This method cannot do it; the next one may.
        evidence = {"error": failures.describe(error)}
        seconds = time.monotonic() - started
        rung = Attempted(position, name, None, RungOutcome.NOT_RUN, None, evidence, seconds)
        foreseen = isinstance(error, CannotTrain | UnlearningError)
        return rung, None, None if foreseen else error
    seconds = time.monotonic() - started
    heartbeat.report(f"verify {name}", 0.0)
    return judge(ground, position, name, unlearned, seconds), unlearned.state, None


def unlearn(ground: Ground, name: MethodName, heartbeat: Watch) -> Unlearned:
    """Return what a method makes of the parent, before anybody judged it.

    Raises:
        UnlearningError: see its tree.
        CannotTrain: the recipe has no ``train``, and the method needs it.

    """
    context = Context(
        recipe=ground.recipe,
        seed=ground.job.seed,
        device=ground.device,
        progress=heartbeat.report,
        cancelled=heartbeat.is_lost,
        targets=ground.targets,
        ledger=ground.ledger,
        largest_batch=ground.job.batch_limit,
    )
    data = ground.data
    return method_for(name, ground.job.policy.options).unlearn(
        ground.model(ground.parent), data.forget, data.retain, data.validation, context
    )


def judge(
    ground: Ground, position: int, name: MethodName, unlearned: Unlearned, seconds: float
) -> Attempted:
    """Return the rung of a method that took so many seconds, with its verdict and evidence."""
    after = ground.measure(unlearned.state)
    verdict = verify(
        before_state=ground.parent,
        after_state=unlearned.state,
        before=ground.before,
        after=after,
        guarantee=unlearned.guarantee,
        bounds=ground.job.policy.bounds,
    )
    evidence: dict[str, Any] = {
        **unlearned.evidence,
        "before": ground.before.to_json(),
        "after": after.to_json(),
    }
    return Attempted(
        position=position,
        method=name,
        guarantee=unlearned.guarantee,
        outcome=RungOutcome(verdict.outcome),
        verdict=verdict.to_json(),
        evidence=evidence,
        seconds=seconds,
    )


def _drift(ground: Ground, state: State) -> float:
    return distance(ground.parent, state, ground.before.parameters).relative
