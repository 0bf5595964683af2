"""Sets of reference models: planned, made one at a time, used, failed or discarded.

Of a reference only numbers are kept. Whoever adds the numbers of samples, and whoever removes them
because a sample is forgotten, takes the same lock, so that none of a forgotten sample stays.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, func, literal, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app import lifecycle
from app.audit import ledger
from app.db import lock, now
from app.derived import leasing, manifest, reference_losses
from app.derived.reference_losses import Losses
from app.errors import IllegalMove
from app.statuses import ReferenceStatus
from app.tables import ReferenceSet, RegisteredModel

# The audit log's canonical JSON holds whole numbers up to this exactly (RFC 8785, 3.2.2.3).
LARGEST_SEED = 2**53

# How long a publication waits for the numbers of a reference, which may be millions of rows.
PATIENCE = "10min"


@dataclass(frozen=True, slots=True)
class ToMake:
    """All that a worker needs to make the next reference of a set."""

    claim: leasing.Claim
    model_id: UUID
    recipe: str
    seed: int
    """Of the set; the halves of every reference are drawn from it."""
    index: int
    """Of the reference, from 0: so many were made before."""
    planned: int
    data_fingerprint: str
    id_key_id: str
    forgotten_digests: frozenset[bytes]


def begin(
    session: Session, model_id: UUID, version_id: UUID, count: int, seed: int | None = None
) -> ReferenceSet | None:
    """Plan the references of a model that has none in use; None for a count of 0."""
    if count == 0:
        return None
    drawn = secrets.randbelow(LARGEST_SEED) if seed is None else seed
    return lifecycle.begin(
        session,
        ReferenceSet(model_id=model_id, version_id=version_id, seed=drawn, planned=count),
        {"model": str(model_id), "version": str(version_id), "seed": drawn, "planned": count},
    )


def discard(session: Session, model_id: UUID, reason: str) -> None:
    """Give up the references that a model has, if any, and delete their numbers."""
    _lock(session, model_id)
    ids = session.scalars(_sets_of(model_id)).all()
    lifecycle.move(
        session,
        ReferenceSet,
        ids,
        ReferenceStatus.DISCARDED,
        values={
            "finished_at": func.coalesce(ReferenceSet.finished_at, now()),
            "lease_expires_at": None,
        },
        facts={"model": str(model_id), "reason": reason},
    )
    reference_losses.delete_all(session, ids)


def forget(session: Session, model_id: UUID, digests: Select[bytes]) -> None:
    """Delete the numbers of samples that the caller's transaction makes the model forget."""
    _lock(session, model_id)
    reference_losses.delete_samples(session, _sets_of(model_id), digests)


def claim(session: Session, set_id: UUID, lease: timedelta) -> ToMake | None:
    """Take the making of a set's next reference for one lease; None if it is not to be had."""
    taken = leasing.claim(session, ReferenceSet, set_id, lease)
    if taken is None:
        return None
    row = session.get_one(ReferenceSet, set_id)
    model = session.get_one(RegisteredModel, row.model_id)
    if model.data_fingerprint is None or model.id_key_id is None:
        raise RuntimeError(f"model {model.id} has references planned and was never checked")
    return ToMake(
        claim=taken,
        model_id=model.id,
        recipe=model.recipe,
        seed=row.seed,
        index=row.done,
        planned=row.planned,
        data_fingerprint=model.data_fingerprint,
        id_key_id=model.id_key_id,
        forgotten_digests=frozenset(session.scalars(manifest.forgotten(model.id))),
    )


def hold(session: Session, to_make: ToMake, lease: timedelta) -> None:
    """Hold a claim for another lease.

    Raises:
        LeaseLost: another claim has the set, or it does not wait any more.

    """
    leasing.hold(session, ReferenceSet, to_make.claim, lease)


def record(session: Session, to_make: ToMake, losses: Losses) -> bool:
    """Add what a reference showed to the set's numbers; return whether the set wants another one.

    Nothing is added for a sample that was forgotten since the claim. The claim is used up.

    Raises:
        LeaseLost: another claim has the set, or it does not wait any more.

    """
    set_id = to_make.claim.id
    _lock(session, to_make.model_id)
    reference_losses.add(session, set_id, to_make.model_id, losses)
    # After the numbers, so that the heartbeat can hold the lease meanwhile.
    counted = session.execute(
        update(ReferenceSet)
        .where(
            ReferenceSet.id == set_id,
            ReferenceSet.done == to_make.index,
            *leasing.held_by(ReferenceSet, to_make.claim),
        )
        .values(
            done=ReferenceSet.done + 1,
            seconds=ReferenceSet.seconds + losses.seconds,
            attempts=0,
            # Ends this claim: a late heartbeat must not keep the next one out.
            fence=ReferenceSet.fence + 1,
            lease_expires_at=None,
            error=None,
        )
        .returning(ReferenceSet.done, ReferenceSet.planned, ReferenceSet.seconds)
    ).first()
    if counted is None:
        raise leasing.lost(ReferenceSet, to_make.claim)
    facts = {
        "index": to_make.index,
        "group": losses.group,
        "records": losses.records,
        "weights": losses.weights_digest,
    }
    ledger.append(session, [ledger.Entry("reference.destroyed", set_id, facts)])
    if counted.done < counted.planned:
        return True
    lifecycle.move_one(
        session,
        ReferenceSet,
        set_id,
        ReferenceStatus.READY,
        values={"finished_at": now()},
        facts={"references": counted.done, "seconds": counted.seconds},
    )
    return False


def give_back(session: Session, to_make: ToMake, error: str, attempts: int) -> None:
    """Leave the reference to another attempt, or fail the set when the attempts are used up.

    Raises:
        LeaseLost: another claim has the set, or it does not wait any more.

    """
    if to_make.claim.attempt >= attempts:
        fail(session, to_make, f"Gave up after {to_make.claim.attempt} attempts: {error}")
        return
    leasing.hold(session, ReferenceSet, to_make.claim, None)
    session.execute(
        update(ReferenceSet).where(ReferenceSet.id == to_make.claim.id).values(error=error)
    )


def fail(session: Session, to_make: ToMake, error: str) -> None:
    """End a set that another attempt would not help: the model goes without references.

    Raises:
        LeaseLost: another claim has the set, or it does not wait any more.

    """
    _lock(session, to_make.model_id)
    try:
        lifecycle.move_one(
            session,
            ReferenceSet,
            to_make.claim.id,
            ReferenceStatus.FAILED,
            *leasing.held_by(ReferenceSet, to_make.claim),
            values={"error": error, "finished_at": now(), "lease_expires_at": None},
            facts={"error": error},
        )
    except IllegalMove as error_:
        raise leasing.lost(ReferenceSet, to_make.claim) from error_
    # What nobody will use is not kept.
    reference_losses.delete_all(session, [to_make.claim.id])


def ready_set(session: Session, model_id: UUID) -> UUID | None:
    """Return the set whose numbers may be used; None if the model has none."""
    return session.scalar(_sets_of(model_id).where(ReferenceSet.status == ReferenceStatus.READY))


def is_building(session: Session, model_id: UUID) -> bool:
    """Tell whether references of the model are still to be made."""
    building = _sets_of(model_id).where(ReferenceSet.status == ReferenceStatus.BUILDING)
    return bool(session.scalar(select(building.exists())))


def status(session: Session, model_ids: Collection[UUID]) -> dict[UUID, ReferenceSet]:
    """Return the latest set of each model that ever had one."""
    latest = (
        select(ReferenceSet)
        .ext(distinct_on(ReferenceSet.model_id))
        .where(ReferenceSet.model_id.in_(model_ids))
        .order_by(ReferenceSet.model_id, ReferenceSet.created_at.desc())
    )
    return {found.model_id: found for found in session.scalars(latest)}


def _sets_of(model_id: UUID) -> Select[UUID]:
    return select(ReferenceSet.id).where(ReferenceSet.model_id == model_id)


def _lock(session: Session, model_id: UUID) -> None:
    usual = session.scalar(select(func.current_setting("lock_timeout")))
    _wait_up_to(session, PATIENCE)
    lock(session, f"references/{model_id}")
    _wait_up_to(session, usual)


def _wait_up_to(session: Session, patience: str | None) -> None:
    session.execute(select(func.set_config("lock_timeout", patience, literal(True))))
