"""One record for each deletion request of a period, as an authority asks for them.

California asks for the date, nature and manner of a request, the date and nature of the response,
and the basis of a denial (11 CCR § 7101), kept for 24 months; GDPR Art. 5(2) asks to be able to
show that Art. 12(3) and 17 were kept. Sample IDs are in none of them, for the service has none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session

from app.db import transaction
from app.deletions import service as deletions
from app.deletions.service import ErasureView
from app.statuses import ErasureStatus, RequestStatus
from app.tables import DeletionRequest, Notice

# Requests read at a time: bounds the memory of an export of millions.
BATCH = 1_000
DAY_SECONDS = 86_400

# What a request's status says to the person behind it.
RESPONSES = {
    RequestStatus.COMPLETED: "deleted",
    RequestStatus.NOTHING_FOUND: "no data found",
    RequestStatus.REJECTED: "denied",
    RequestStatus.CANCELLED: "withdrawn by the requester",
}


@dataclass(frozen=True, slots=True)
class Period:
    """From a moment on, and up to another one that is not part of it."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """How one request was handled; ``None`` for what has not happened or does not apply."""

    request: str
    received_at: str
    nature: str
    manner: str
    regulation: str
    reference: str | None
    ground: str | None
    samples: int
    due_at: str | None
    confirmed_at: str | None
    extended_at: str | None
    paused_days: float
    responded_at: str | None
    response: str | None
    denial_basis: str | None
    days: float | None
    overdue: bool
    models: int
    models_completed: int
    versions: str
    guarantees: str
    recipients_told: int


COLUMNS = tuple(field.name for field in fields(Record))


def records(period: Period, now: datetime) -> Iterator[Record]:
    """Yield the requests received in a period, oldest first, a few at a time."""
    after: tuple[datetime, UUID] | None = None
    while True:
        with transaction() as session:
            requests = session.scalars(_next(period, after)).all()
            erasures = deletions.erasures_of(session, [request.id for request in requests])
            told = _recipients_told(session, erasures)
        yield from (
            _record(request, erasures[request.id], told.get(request.id, 0), now)
            for request in requests
        )
        if len(requests) < BATCH:
            return
        after = (requests[-1].received_at, requests[-1].id)


def _next(period: Period, after: tuple[datetime, UUID] | None) -> Select[DeletionRequest]:
    at, id_ = DeletionRequest.received_at, DeletionRequest.id
    statement = (
        select(DeletionRequest)
        .where(at >= period.start, at < period.end)
        .order_by(at, id_)
        .limit(BATCH)
    )
    return statement if after is None else statement.where(tuple_(at, id_) > tuple_(*after))


def _record(
    request: DeletionRequest, views: Sequence[ErasureView], told: int, now: datetime
) -> Record:
    completed = [view for view in views if view.erasure.status == ErasureStatus.COMPLETED]
    status = RequestStatus(request.status)
    response = RESPONSES.get(status)
    in_part = len(completed) < len(views) or request.rejected_at is not None
    if status == RequestStatus.COMPLETED and in_part:
        response = "deleted in part"
    ended = request.finished_at or now
    seconds = (ended - request.received_at).total_seconds()
    # While its clock stands still a deadline does not pass.
    ran_until = request.paused_at or ended
    paused = request.paused_for + (ended - ran_until)
    return Record(
        request=str(request.id),
        received_at=request.received_at.isoformat(),
        nature="deletion",
        manner=f"API, by {request.client}",
        regulation=request.regulation,
        reference=request.reference,
        ground=request.reason,
        samples=request.sample_count,
        due_at=_told(request.due_at),
        confirmed_at=_told(request.confirmed_at),
        extended_at=_told(request.extended_at),
        paused_days=round(paused.total_seconds() / DAY_SECONDS, 3),
        responded_at=_told(request.finished_at),
        response=response if request.finished_at is not None else None,
        denial_basis="; ".join(_basis(request, views)) or None,
        days=None if request.finished_at is None else round(seconds / DAY_SECONDS, 3),
        overdue=request.due_at is not None and ran_until > request.due_at,
        models=len(views),
        models_completed=len(completed),
        versions=" ".join(
            f"{view.model}/{view.version.number}" for view in completed if view.version is not None
        ),
        guarantees=" ".join(
            sorted({str(v.version.guarantee) for v in completed if v.version is not None})
        ),
        recipients_told=told,
    )


def _basis(request: DeletionRequest, views: Sequence[ErasureView]) -> list[str]:
    """Return the reason of a rejection, and of each model why it has not forgotten."""
    return [
        *([] if request.rejection is None else [request.rejection]),
        *(
            f"{view.model}: {view.erasure.problem or view.erasure.status}"
            for view in views
            if view.erasure.status == ErasureStatus.NEEDS_ATTENTION
        ),
    ]


def _told(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _recipients_told(session: Session, erasures: dict[UUID, list[ErasureView]]) -> dict[UUID, int]:
    # A version that forgot has withdrawn its parent, and the notices are about that one.
    withdrawn = {
        request_id: {view.version.parent_id for view in views if view.version is not None}
        for request_id, views in erasures.items()
    }
    counts = dict(
        session.execute(
            select(Notice.version_id, func.count())
            .where(Notice.version_id.in_(set().union(*withdrawn.values()) - {None}))
            .group_by(Notice.version_id)
        ).all()
    )
    return {
        request_id: sum(counts.get(id_, 0) for id_ in ids if id_ is not None)
        for request_id, ids in withdrawn.items()
    }
