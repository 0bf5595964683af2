"""Make the reference models of a set, one at a time, and say what they expect.

No model outlives the function that trained it, and none is ever written anywhere.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.orm import Session
from torch import Tensor

from app.db import transaction
from app.derived import leasing, reference_losses, references
from app.derived.reference_losses import Losses, Moments
from app.derived.references import ToMake
from app.errors import LeaseLost
from app.settings import settings
from app.tables import ReferenceSet
from lethe.recipe import CannotTrain
from workers import failures
from workers.artifacts import digest_of, dump_state
from workers.data import id_key_of, registered_digests
from workers.device import set_up_device
from workers.heartbeat import Heartbeat
from workers.recipes import find_recipe
from workers.stopping import Stopping, interruptible
from workers.unlearning.contract import Context
from workers.unlearning.errors import Cancelled, UnlearningError
from workers.unlearning.references import (
    Expected,
    Judges,
    expected_of,
    group_of,
    train_reference,
)

log = structlog.get_logger()

# What another attempt would meet again.
PERMANENT = (*failures.PERMANENT, CannotTrain, UnlearningError)


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a model's references expect of the records of one job."""

    targets: Tensor
    """Mean loss of each forget record under the target references that never saw it, shape (m,),
    float64 on the CPU; NaN where unknown."""
    judges: Judges


def make_reference(set_id: UUID) -> bool:
    """Make the next reference of a set, if it waits for one; return whether it wants another.

    After an error the set waits for the next sweep, or has failed: no answer calls for haste then.
    """
    lease = settings().lease
    with transaction() as session:
        to_make = references.claim(session, set_id, lease)
    if to_make is None:
        log.info("reference.not_waiting", set=str(set_id))
        return False
    attempt = to_make.claim.attempt
    log.info("reference.started", set=str(set_id), index=to_make.index, attempt=attempt)
    if attempt > settings().job_attempts:
        with transaction() as session:
            references.fail(session, to_make, "Gave up: each worker that made it died.")
        return False

    def renew(_: object) -> None:
        with transaction() as session:
            references.hold(session, to_make, lease)

    try:
        with Heartbeat(renew, lease, f"references {set_id}") as heartbeat:
            with interruptible():
                losses = _make(to_make, heartbeat)
            return _record(to_make, losses)
    except Stopping:
        log.warning("reference.released", set=str(set_id), index=to_make.index)
        with transaction() as session:
            leasing.release(session, ReferenceSet, to_make.claim)
    except (LeaseLost, Cancelled):
        log.warning("reference.superseded", set=str(set_id), index=to_make.index)
    except Exception as error:  # noqa: BLE001  # a worker outlives whatever a recipe does
        _give_up(to_make, error)
    return False


def expected_for(
    session: Session,
    set_id: UUID,
    forget_digests: Sequence[bytes],
    judging_positions: Sequence[int],
) -> Expectations:
    """Return what a set expects of the forget records and of the judging half of the holdout.

    Both are given in the order of their sets. Nothing is expected of a record without numbers,
    such as one that was forgotten before.
    """
    forgotten = reference_losses.losses_of(session, set_id, forget_digests)
    unseen = reference_losses.holdout_losses_of(session, set_id, judging_positions)
    return Expectations(
        targets=_expected(forgotten.targets).mean,
        judges=Judges(forgotten=_expected(forgotten.judges), unseen=_expected(unseen.judges)),
    )


def _make(to_make: ToMake, heartbeat: Heartbeat) -> Losses:
    started = time.monotonic()
    recipe = find_recipe(to_make.recipe)
    id_key = id_key_of(to_make.id_key_id)
    digests = registered_digests(recipe, id_key, to_make.data_fingerprint)
    context = Context(
        recipe=recipe,
        seed=to_make.seed,
        device=set_up_device(),
        progress=heartbeat.report,
        cancelled=heartbeat.is_lost,
    )
    shown = train_reference(
        to_make.index,
        recipe.training_data(),
        recipe.holdout_data(),
        [i for i, digest in enumerate(digests) if digest not in to_make.forgotten_digests],
        context,
        lambda state: digest_of(dump_state(state)),
    )
    return Losses(
        group=group_of(to_make.index),
        digests=[digests[i] for i in shown.half.left_out],
        training=shown.training.tolist(),
        positions=shown.half.holdout,
        holdout=shown.holdout.tolist(),
        records=len(shown.half.trained_on),
        weights_digest=shown.weights_digest,
        seconds=time.monotonic() - started,
    )


def _record(to_make: ToMake, losses: Losses) -> bool:
    with transaction() as session:
        wants_more = references.record(session, to_make, losses)
    log.info(
        "reference.made",
        set=str(to_make.claim.id),
        index=to_make.index,
        planned=to_make.planned,
        seconds=losses.seconds,
    )
    return wants_more


def _give_up(to_make: ToMake, error: Exception) -> None:
    described = failures.describe(error)
    log.error("reference.failed", set=str(to_make.claim.id), index=to_make.index, error=described)
    try:
        with transaction() as session:
            if isinstance(error, PERMANENT):
                references.fail(session, to_make, described)
            else:
                references.give_back(session, to_make, described, settings().job_attempts)
    except LeaseLost:
        log.warning("reference.superseded", set=str(to_make.claim.id), index=to_make.index)


def _expected(moments: Moments) -> Expected:
    return expected_of(moments.counts, moments.means, moments.squares)
