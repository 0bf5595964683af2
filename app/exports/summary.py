"""How many requests there were in each year of a period, and how long they took (11 CCR § 7102)."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Double, Integer, case, cast, extract, func, select
from sqlalchemy.orm import Session

from app.exports.records import DAY_SECONDS, Period
from app.statuses import ErasureStatus, RequestStatus
from app.tables import DeletionRequest, Erasure


@dataclass(frozen=True, slots=True)
class Year:
    """The requests that were received in one calendar year (UTC), within the period."""

    year: int
    regulation: str
    received: int
    complied: int
    complied_in_part: int
    nothing_found: int
    denied: int
    withdrawn: int
    open: int
    overdue: int
    median_days: float | None
    """From receipt to the end of those that ended otherwise than by their own withdrawal."""


def years(session: Session, period: Period) -> list[Year]:
    """Return one row for each year and regulation, in their order."""
    request = DeletionRequest
    partly = (
        select(Erasure.id)
        .where(
            Erasure.request_id == request.id,
            Erasure.status.in_([ErasureStatus.REJECTED, ErasureStatus.CANCELLED]),
        )
        .exists()
    ) | request.rejected_at.is_not(None)
    completed = request.status == RequestStatus.COMPLETED
    responded = request.finished_at.is_not(None) & (request.status != RequestStatus.CANCELLED)
    days = cast(extract("epoch", request.finished_at - request.received_at) / DAY_SECONDS, Double)
    # While its clock stands still a deadline does not pass.
    ran_until = func.coalesce(request.paused_at, request.finished_at, func.clock_timestamp())
    late = request.due_at < ran_until
    year = cast(extract("year", request.received_at), Integer)

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count(case((condition, 1)))

    rows = session.execute(
        select(
            year.label("year"),
            request.regulation,
            func.count().label("received"),
            count(completed & ~partly).label("complied"),
            count(completed & partly).label("complied_in_part"),
            count(request.status == RequestStatus.NOTHING_FOUND).label("nothing_found"),
            count(request.status == RequestStatus.REJECTED).label("denied"),
            count(request.status == RequestStatus.CANCELLED).label("withdrawn"),
            count(request.finished_at.is_(None)).label("open"),
            count(late).label("overdue"),
            func.percentile_cont(0.5).within_group(case((responded, days))).label("median_days"),
        )
        .where(request.received_at >= period.start, request.received_at < period.end)
        .group_by(year, request.regulation)
        .order_by(year, request.regulation)
    )
    return [Year(**row) for row in rows.mappings()]
