"""Leases on what is computed beside the weights: one worker at a time, and a dead one is replaced.

A claim raises the row's fence; every later write of a claim is guarded by the fence it got.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from app import moves
from app.errors import LeaseLost
from app.statuses import LedgerStatus, ReferenceStatus
from app.tables import GradientLedger, ReferenceSet

Leased = type[ReferenceSet] | type[GradientLedger]

# The status in which a row waits for a worker.
WAITING = {ReferenceSet: ReferenceStatus.BUILDING, GradientLedger: LedgerStatus.COMPUTING}


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's hold on a row."""

    id: UUID
    fence: int
    attempt: int
    """Claims since the last success, this one included."""


def claim(session: Session, table: Leased, id_: UUID, lease: timedelta) -> Claim | None:
    """Take a row for one lease; None if it does not wait for a worker or another one has it."""
    row = session.execute(
        update(table)
        .where(table.id == id_, *_waits(table))
        .values(
            fence=table.fence + 1,
            attempts=table.attempts + 1,
            lease_expires_at=func.clock_timestamp() + lease,
        )
        .returning(table.fence, table.attempts)
    ).first()
    return None if row is None else Claim(id_, row.fence, row.attempts)


def hold(session: Session, table: Leased, claim: Claim, lease: timedelta | None) -> None:
    """Hold a row for another lease, or give it back with None.

    Raises:
        LeaseLost: another claim has it, or it does not wait any more.

    """
    held = session.execute(
        update(table)
        .where(table.id == claim.id, *held_by(table, claim))
        .values(lease_expires_at=None if lease is None else func.clock_timestamp() + lease)
        .returning(table.id)
    ).first()
    if held is None:
        raise lost(table, claim)


def release(session: Session, table: Leased, claim: Claim) -> None:
    """Give a row back whose worker has been told to stop; it costs no attempt.

    Raises:
        LeaseLost: another claim has it, or it does not wait any more.

    """
    hold(session, table, claim, None)
    session.execute(update(table).where(table.id == claim.id).values(attempts=table.attempts - 1))


def lock_held(session: Session, table: Leased, claim: Claim) -> None:
    """Keep a claim's row from being taken or ended by others until the transaction ends.

    Raises:
        LeaseLost: another claim has it, or it does not wait any more.

    """
    held = select(table.id).where(table.id == claim.id, *held_by(table, claim))
    if session.scalar(held.with_for_update()) is None:
        raise lost(table, claim)


def held_by(table: Leased, claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a claim still has its row."""
    return (table.fence == claim.fence, table.status == WAITING[table])


def lost(table: Leased, claim: Claim) -> LeaseLost:
    """Return the error of a claim that does not hold its row any more."""
    return LeaseLost(f"{moves.SUBJECTS[table]} {claim.id}: fence {claim.fence} is void")


def waiting(session: Session, table: Leased, model_id: UUID | None = None) -> list[UUID]:
    """Return the rows, of one model or all, that wait and that nobody works on, oldest first."""
    statement = select(table.id).where(*_waits(table)).order_by(table.created_at)
    if model_id is not None:
        statement = statement.where(table.model_id == model_id)
    return list(session.scalars(statement))


def _waits(table: Leased) -> tuple[ColumnElement[bool], ...]:
    expires_at = table.lease_expires_at
    return (
        table.status == WAITING[table],
        or_(expires_at.is_(None), expires_at < func.clock_timestamp()),
    )
