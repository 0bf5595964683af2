"""When an open request is expected to be done, by what earlier jobs took and by the policies.

What a job takes is measured from its planning to its publication. How long erasures wait before
that follows from the batching policy: to measure it as well would count it twice. Whatever the
page, it takes one statement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.db import now
from app.deletions.prospects import Prospect, prospects_of
from app.settings import settings
from app.statuses import ErasureStatus, RequestStatus
from app.tables import DeletionRequest, Erasure
from lethe.policy import Policy

# How soon somebody decides whom a request waits for: likely, and if it takes long.
PERSON = (timedelta(days=1), timedelta(days=3))
# Until then, or that something else happens, it is seldom worth asking again.
PERSON_POLL = timedelta(minutes=5)
LONGEST_POLL = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

OPEN = (
    ErasureStatus.PENDING,
    ErasureStatus.PAUSED,
    ErasureStatus.SCHEDULED,
    ErasureStatus.NEEDS_ATTENTION,
)


class Level(StrEnum):
    """How likely a deadline is missed."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    BREACHED = "breached"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of an open request."""

    level: Level
    expected_at: datetime | None
    """When it is done, as half of the earlier jobs would have it; None where nobody can tell."""
    late_at: datetime | None
    """The same, if its jobs take longer than nine in ten did."""
    poll_at: datetime
    """When something may have changed."""
    detail: str


@dataclass(frozen=True, slots=True)
class Span:
    """A moment that is likely, and one that it is seldom later than."""

    likely: datetime
    late: datetime


def forecast(
    session: Session,
    requests: Sequence[DeletionRequest],
    erasures: Mapping[UUID, Sequence[Erasure]],
) -> dict[UUID, Forecast]:
    """Return what is expected of those of the requests that are open."""
    at = now()
    waiting = {
        request.id: [each for each in erasures[request.id] if each.status in OPEN]
        for request in requests
        if request.finished_at is None
    }
    models = {each.model_id for several in waiting.values() for each in several}
    prospects = prospects_of(session, models) if models else {}
    return {
        request.id: _foresee(request, waiting[request.id], prospects, at)
        for request in requests
        if request.id in waiting
    }


def poll_after(found: Forecast, at: datetime) -> timedelta:
    """Return how long to wait before asking again."""
    return min(max(found.poll_at - at, settings().plan_interval), LONGEST_POLL)


def _foresee(
    request: DeletionRequest,
    open_: Sequence[Erasure],
    prospects: Mapping[UUID, Prospect],
    at: datetime,
) -> Forecast:
    ends = [_end(each, prospects[each.model_id], at) for each in open_]
    polls = [_poll(each, prospects[each.model_id], at) for each in open_]
    whom = _waits_for_somebody(request, open_)
    if whom is not None:
        span = _after_somebody(open_, prospects, at)
        level = _level(request, span, at)
        return Forecast(level, None, None, at + PERSON_POLL, whom)
    if not open_:
        level = Level.BREACHED if _is_late(request, at) else Level.UNKNOWN
        detail = "A model that may hold samples is being checked."
        return Forecast(level, None, None, at, detail)
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        level = Level.BREACHED if _is_late(request, at) else Level.UNKNOWN
        detail = "A model concerned has published no job yet, so that nothing is measured."
        return Forecast(level, None, None, min(polls), detail)
    span = Span(max(end.likely for end in known), max(end.late for end in known))
    detail = "From what the last jobs of the models took, and their batching policies."
    likely, late = _whole_minute(span.likely), _whole_minute(span.late)
    return Forecast(_level(request, span, at), likely, late, min(polls), detail)


def _waits_for_somebody(request: DeletionRequest, open_: Sequence[Erasure]) -> str | None:
    if request.paused_at is not None:
        return "The clock stands still until somebody resumes it."
    if request.status == RequestStatus.HELD:
        return "It waits for an approval."
    if any(each.status == ErasureStatus.NEEDS_ATTENTION for each in open_):
        return "It needs attention; see the problems of its erasures."
    return None


def _after_somebody(
    open_: Sequence[Erasure], prospects: Mapping[UUID, Prospect], at: datetime
) -> Span:
    half = max((prospects[each.model_id].half_seconds or 0.0 for each in open_), default=0.0)
    most = max((prospects[each.model_id].most_seconds or 0.0 for each in open_), default=0.0)
    return Span(at + PERSON[0] + timedelta(seconds=half), at + PERSON[1] + timedelta(seconds=most))


def _level(request: DeletionRequest, span: Span, at: datetime) -> Level:
    if request.due_at is None or request.paused_at is not None:
        return Level.LOW
    if _is_late(request, at):
        return Level.BREACHED
    if span.likely > request.due_at:
        return Level.HIGH
    return Level.MEDIUM if span.late > request.due_at else Level.LOW


def _is_late(request: DeletionRequest, at: datetime) -> bool:
    return request.paused_at is None and request.due_at is not None and at > request.due_at


def _end(erasure: Erasure, prospect: Prospect, at: datetime) -> Span | None:
    if prospect.half_seconds is None or prospect.most_seconds is None:
        return None
    half = timedelta(seconds=prospect.half_seconds)
    most = timedelta(seconds=prospect.most_seconds)
    running = _job_end(prospect.job_created_at, half, most, at)
    if erasure.status == ErasureStatus.SCHEDULED and running is not None:
        return running
    start = starts_at(erasure, prospect, at)
    likely = start if running is None else max(start, running.likely)
    late = start if running is None else max(start, running.late)
    return Span(likely + half, late + most)


def _job_end(
    created_at: datetime | None, half: timedelta, most: timedelta, at: datetime
) -> Span | None:
    if created_at is None:
        return None
    if created_at + half > at:
        return Span(created_at + half, created_at + most)
    if created_at + most > at:
        return Span(created_at + most, created_at + most)
    # Slower than nearly all others: as if it began once more.
    return Span(at + half, at + most)


def starts_at(erasure: Erasure, prospect: Prospect, at: datetime) -> datetime:
    """Return when a job begins at the latest for what a model has pending; a full batch is sooner.

    As ``planner.what_is_due`` decides it.
    """
    try:
        policy = Policy.model_validate(prospect.policy)
    except ValidationError:
        return at
    batching = policy.batching
    oldest = prospect.oldest_at or erasure.created_at
    start = oldest if erasure.cohort_id is not None else oldest + batching.max_wait
    if prospect.building:
        start = max(start, oldest + policy.references.max_delay)
    if prospect.last_job_at is not None:
        start = max(start, prospect.last_job_at + batching.min_spacing)
    nearest = prospect.nearest_due_at or erasure.due_at
    if nearest is not None:
        start = min(start, nearest - batching.deadline_headroom)
    return max(start, at)


def _poll(erasure: Erasure, prospect: Prospect, at: datetime) -> datetime:
    if erasure.status == ErasureStatus.PENDING and prospect.job_created_at is None:
        return starts_at(erasure, prospect, at)
    if prospect.half_seconds is None or not prospect.job_running:
        return at
    ends = _job_end(
        prospect.job_created_at,
        timedelta(seconds=prospect.half_seconds),
        timedelta(seconds=prospect.most_seconds or 0.0),
        at,
    )
    return at if ends is None else ends.likely


def _whole_minute(at: datetime) -> datetime:
    # So that what changes with every look does not change what is shown at every look.
    floor = at.replace(second=0, microsecond=0)
    return floor if floor == at else floor + MINUTE
