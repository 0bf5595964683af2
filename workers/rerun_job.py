"""Repeat a published job from what was recorded of it, and compare what comes out.

Run by ``workers.rerun`` as a process of its own, in which nothing else ever happened. All that is
read from the store is read at the start, so that no purge waits for a repetition of hours.
"""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

import torch

from app import logs
from app.artifacts import ArtifactStore
from app.db import transaction
from app.derived.ledgers import Kept
from app.errors import LetheError
from app.jobs import records
from app.jobs.outcome import Attempted
from app.jobs.records import Published, Record
from app.settings import settings
from lethe.recipe import CannotTrain
from workers import failures, ladder, ledgers
from workers.artifacts import Corrupted, digest_of, dump_state, load_state
from workers.data import DataChanged, id_key_of
from workers.ground import Given, Ground, State, prepare
from workers.recipes import UnknownRecipe, recipe_fingerprint
from workers.records import environment, load_losses
from workers.signing import NotSigned
from workers.unlearning.errors import StaleLedger, UnlearningError
from workers.unlearning.weights import distance

REPRODUCED, DIFFERS, NOT_POSSIBLE = "reproduced", "differs", "not_possible"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a repetition; JSON values only."""

    outcome: str
    reasons: tuple[str, ...] = ()
    """Why it is not ``reproduced``, in words."""
    expected: str | None = None
    """Digest of the weights that the job published."""
    digest: str | None = None
    """Digest of those that came out now."""
    distance: float | None = None
    """‖θ now − θ published‖ / ‖θ published − θ of the parent‖, L2; 0 for equal digests."""
    tolerance: float | None = None
    differences: Mapping[str, Any] = field(default_factory=dict)
    """Where it was repeated with other software or on another device: what was, and what is. That
    may explain another outcome, and excuses none."""
    software: Mapping[str, Any] = field(default_factory=dict)
    is_published: bool = True
    """Whether there is a job to report on at all."""


class NotPossible(Exception):
    """What a repetition would need is not there; the message says what."""


class Differs(Exception):
    """What was recorded is not what is there, or not what comes out; the message says what."""


class _Unwatched:
    """Nobody else wants the job, and nobody follows it."""

    def report(self, phase: str, fraction: float) -> None:
        """Tell nobody."""

    def is_lost(self) -> bool:
        """Go on in any case."""
        return False


def repeat(job_id: UUID) -> Result:
    """Repeat a job and compare; whatever happens on the way is said in the result."""
    try:
        published = _find(job_id)
    except LetheError as error:
        return Result(NOT_POSSIBLE, (error.detail,), is_published=False)
    result = Result(NOT_POSSIBLE, expected=published.digest)
    try:
        record = _require_record(published)
        result = replace(result, tolerance=record.inputs["tolerance"])
        contradictions = records.contradictions(published)
        if contradictions:
            return replace(result, outcome=DIFFERS, reasons=tuple(contradictions))
        device = _set_up(record)
        result = replace(result, software=environment(device))
        ground = _prepare(published, record, device)
        result = replace(result, differences=_differences(record, ground))
        return _compare(result, published, record, ground)
    except NotPossible as error:
        return replace(result, outcome=NOT_POSSIBLE, reasons=(str(error),))
    except Differs as error:
        return replace(result, outcome=DIFFERS, reasons=(str(error),))
    except Exception as error:  # noqa: BLE001  # a recipe may raise anything
        why = f"The repetition broke down: {failures.describe(error)}"
        return replace(result, outcome=NOT_POSSIBLE, reasons=(why,))


def _find(job_id: UUID) -> Published:
    with transaction() as session:
        return records.find(session, job_id)


def _require_record(published: Published) -> Record:
    _refuse_purged(published)
    record = published.record
    if record is None:
        raise NotPossible("The job has no record: it was run by an earlier release.")
    if record.inputs.get("format") != records.FORMAT:
        raise NotPossible("The job's record is of another format; repeat it with its release.")
    if record.losses is None and record.inputs["references"] is not None:
        raise NotPossible("The numbers about single samples are gone that the job was given.")
    return record


def _refuse_purged(published: Published) -> None:
    if published.is_parent_purged:
        at = published.parent_purged_at
        since = "" if at is None else f" on {at:%Y-%m-%d}"
        raise NotPossible(
            f"The parent, version {published.parent_number}, was purged{since}: what the job "
            "started from is gone for good."
        )


def _set_up(record: Record) -> torch.device:
    """Return the device that the job ran on, with as many threads as it had."""
    then = record.inputs["environment"]
    torch.set_num_threads(then["threads"])
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    available["mps"] = torch.backends.mps.is_available()
    if not available.get(then["device"], False):
        raise NotPossible(f"The job ran on {then['device']}, which this machine lacks.")
    chosen = settings().device
    return torch.device(chosen if chosen.startswith(then["device"]) else then["device"])


def _prepare(published: Published, record: Record, device: torch.device) -> Ground:
    job = published.job
    store = ArtifactStore(settings().artifacts_folder)
    try:
        id_key = id_key_of(job.id_key_id)
        given = Given(device, *load_losses(record.losses))
        if store.find(job.parent_digest) is None:
            _refuse_purged(_find(job.id))  # meanwhile
            raise NotPossible(f"The artifact store lacks the parent, {job.parent_digest}.")
        # The ledger apart: a worker does without one that does not fit.
        ground = prepare(replace(job, gradient_ledger=None), id_key, store, given)
        return replace(ground, job=job, ledger=_ledger(ground, job.gradient_ledger, store))
    except (UnknownRecipe, DataChanged, NotSigned) as error:
        raise NotPossible(str(error)) from error
    except Corrupted as error:
        raise Differs(f"What the job started from was altered: {error}") from error


def _ledger(ground: Ground, kept: Kept | None, store: ArtifactStore) -> Any:
    if kept is None:
        return None
    if store.find(kept.digest) is None:
        raise NotPossible("The gradient ledger that the job used is gone.")
    try:
        return ledgers.load(
            kept,
            store,
            weights_digest=ground.job.parent_digest,
            data_fingerprint=ground.job.data_fingerprint,
            forgotten=ground.job.forgotten_digests,
            # It is what the job was given, whatever the recipe has become since.
            recipe_fingerprint=kept.recipe_fingerprint,
        )
    except StaleLedger as error:
        raise Differs(f"What the job started from was altered: {error}") from error


def _differences(record: Record, ground: Ground) -> dict[str, Any]:
    then = {
        **record.inputs["environment"],
        "recipe_fingerprint": record.inputs["recipe_fingerprint"],
    }
    here = {**environment(ground.device), "recipe_fingerprint": recipe_fingerprint(ground.recipe)}
    return {
        name: {"recorded": then.get(name), "here": here.get(name)}
        for name in sorted(then.keys() | here.keys())
        if then.get(name) != here.get(name)
    }


def _compare(result: Result, published: Published, record: Record, ground: Ground) -> Result:
    rung, state = _run(record, ground)
    digest = digest_of(dump_state(state))
    tolerance = record.inputs["tolerance"]
    is_same = digest == published.digest
    apart = 0.0 if is_same else _distance(published, ground, state)
    if tolerance > 0 and apart is None:
        raise NotPossible("The published weights are gone: how far apart the two are is unknown.")
    reasons: list[str] = []
    if not is_same and (tolerance == 0 or apart is None or apart > tolerance):
        reasons.append("Other weights came out.")
    if not _agree(rung.verdict, published.verdict, exactly=tolerance == 0):
        reasons.append("The verdict is another one.")
    return replace(
        result,
        outcome=DIFFERS if reasons else REPRODUCED,
        reasons=tuple(reasons),
        digest=digest,
        distance=apart,
    )


def _run(record: Record, ground: Ground) -> tuple[Attempted, State]:
    method, watch = record.inputs["method"], _Unwatched()
    try:
        unlearned = ladder.unlearn(ground, method, watch)
    except (CannotTrain, UnlearningError) as error:
        raise Differs(f"The method gives no weights: {failures.describe(error)}") from error
    position = record.inputs["position"]
    return ladder.judge(ground, position, method, unlearned, seconds=0.0), unlearned.state


def _distance(published: Published, ground: Ground, state: State) -> float | None:
    """Return how far apart the two outcomes are; None where the published one is not there."""
    path = ArtifactStore(settings().artifacts_folder).find(published.digest)
    try:
        other = {} if path is None else load_state(path, published.digest)
    except Corrupted:
        return None
    if other.keys() != state.keys():
        return None
    # Buffers, too, though no gradient moves them.
    way = distance(ground.parent, other, other).norm
    found = distance(other, state, other).norm / way if way > 0 else math.nan
    return found if math.isfinite(found) else None


def _agree(
    here: Mapping[str, Any] | None, then: Mapping[str, Any] | None, *, exactly: bool
) -> bool:
    if here is None or then is None:
        return False
    if exactly:
        return bool(json.loads(json.dumps(here)) == then)
    return _outcomes(here) == _outcomes(then)


def _outcomes(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    each = [(check["name"], check["outcome"]) for check in verdict["checks"]]
    return [("verdict", verdict["outcome"]), *each]


def main(arguments: list[str]) -> None:
    """Repeat the job of the first argument; tell whoever reads from the descriptor of the second.

    Standard output is not for the result: whatever a recipe prints comes out there.
    """
    job_id, descriptor = UUID(arguments[0]), int(arguments[1])
    logs.set_up()
    result = repeat(job_id)
    with os.fdopen(descriptor, "w") as reader:
        json.dump(asdict(result), reader)


if __name__ == "__main__":
    main(sys.argv[1:])
