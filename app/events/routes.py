"""Events as they happen: of one request, of one job, and of all that a caller may see."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.orm import Session

from app.deletions import service as deletions
from app.errors import InvalidCursor, NotFound, TooManyStreams
from app.events import reading
from app.events.broadcast import Broadcast
from app.events.reading import Batch
from app.events.stopping import told_to_stop
from app.events.streaming import EventStream, Stream, events
from app.events.watching import FeedWatch, JobWatch, RequestWatch, Watch
from app.jobs import service as jobs
from app.problems import responses
from app.security import Caller, JobReader, Reader
from app.wire import COMMON


@asynccontextmanager
async def _ending_streams(app: FastAPI) -> AsyncIterator[None]:
    broadcast = broadcast_of(app)
    with told_to_stop(broadcast.stop):
        yield
    await broadcast.finish()


router = APIRouter(tags=["events"], lifespan=_ending_streams)

_EXAMPLE = """\
retry: 3000
id: -1

id: 41
event: deletion_request.pending
data: {"at": "2026-03-02T09:00:00+00:00", "event": "deletion_request.pending", "subject": …}

event: progress
data: {"job": "3d0c4b52-7f43-4b0e-8d3a-0a2f7c1f9e55", "phase": "iau", "fraction": 0.4}

event: end
data: {}
"""

# Of one event, since the specification has no words for a stream of them.
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "description": "`data` is JSON: when, what, whom it is about, and the facts that you may see.",
}

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, until the end, or for a quarter of an hour.",
        "content": {
            "text/event-stream": {"schema": _EVENT, "example": _EXAMPLE},
        },
        "headers": {"Cache-Control": {"schema": {"type": "string"}, "example": "no-cache"}},
    }
}
_ENDED: dict[int | str, dict[str, Any]] = {
    204: {"description": "You have all of it: the end was told. An EventSource then stays away."}
}

# Positions are stored as 64-bit integers; -1 is the one before the first.
Position = Annotated[int, Field(ge=-1, lt=2**63)]


async def resume_point(
    last_event_id: Annotated[
        Position | SkipJsonSchema[None],
        Header(
            alias="Last-Event-ID",
            description="The last `id` that you got: what follows it is told, without a gap.",
        ),
    ] = None,
    after: Annotated[
        Position | SkipJsonSchema[None],
        Query(description="The same, for clients that cannot set the header."),
    ] = None,
) -> int | None:
    """Return the position after which to go on, if the client gave one."""
    # A client that connects again sends its newest one as the header, and the URL as it was.
    return after if last_event_id is None else last_event_id


@dataclass(frozen=True, slots=True)
class Seat:
    """A caller with a place among the streams."""

    caller: Caller
    broadcast: Broadcast


async def _seat_reader(request: Request, caller: Reader) -> AsyncIterator[Seat]:
    broadcast = broadcast_of(request.app)
    with broadcast.seat(caller.name):
        yield Seat(caller, broadcast)


async def _seat_job_reader(request: Request, caller: JobReader) -> AsyncIterator[Seat]:
    broadcast = broadcast_of(request.app)
    with broadcast.seat(caller.name):
        yield Seat(caller, broadcast)


After = Annotated[int | None, Depends(resume_point)]
SeatedReader = Annotated[Seat, Depends(_seat_reader)]
SeatedJobReader = Annotated[Seat, Depends(_seat_job_reader)]


@router.get(
    "/v1/deletion-requests/{request_id}/events",
    response_class=StreamingResponse,
    responses={**_STREAM, **_ENDED, **responses(*COMMON, NotFound, InvalidCursor, TooManyStreams)},
)
async def of_request(request_id: UUID, seat: SeatedReader, after: After) -> Response:
    """Follow one request: what the log has about it, then what comes, until it is finished.

    Of jobs, which other requests share, a key that opens its own requests alone hears the status.
    """
    only_of = seat.caller.only_of

    def read(session: Session, start: int) -> Batch:
        return reading.of_request(session, request_id, start)

    def check(session: Session) -> None:
        deletions.get(session, request_id, only_of)

    return await _follow(seat, RequestWatch(request_id), read, after, check)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={**_STREAM, **_ENDED, **responses(*COMMON, NotFound, InvalidCursor, TooManyStreams)},
)
async def of_job(job_id: UUID, seat: SeatedJobReader, after: After) -> Response:
    """Follow one job: what the log has about it, then what comes, until it has ended."""

    def read(session: Session, start: int) -> Batch:
        return reading.of_job(session, job_id, start)

    def check(session: Session) -> None:
        jobs.get(session, job_id)

    return await _follow(seat, JobWatch(job_id), read, after, check)


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={**_STREAM, **responses(*COMMON, InvalidCursor, TooManyStreams)},
)
async def of_all(seat: SeatedReader, after: After) -> Response:
    """Follow all requests that the caller may see, from now on unless it says after what.

    Jobs and versions are told of to those alone who may see everybody's requests.
    """
    only_of = seat.caller.only_of
    if after is None:
        after = await seat.broadcast.read(reading.size) - 1

    def read(session: Session, start: int) -> Batch:
        return reading.of_all(session, start, only_of)

    return await _follow(seat, FeedWatch(only_of), read, after, start=after + 1)


async def _follow(
    seat: Seat,
    watch: Watch,
    read: Callable[[Session, int], Batch],
    after: int | None,
    check: Callable[[Session], None] = lambda _: None,
    start: int = 0,
) -> Response:
    wide = seat.caller.only_of is None
    stream = Stream(
        watch,
        read,
        wide,
        after=-1 if after is None else after,
        breaks=seat.broadcast.breaks,
        position=start,
    )
    # Read before the answer begins, so that what goes wrong is still a problem with a status.
    batch = await seat.broadcast.read(partial(_first, stream, check))
    first = stream.take(batch)
    if after is not None and watch.ends and not first:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    lifetime = seat.broadcast.limits.lifetime
    return EventStream(events(stream, seat.broadcast, first), lifetime)


def _first(stream: Stream, check: Callable[[Session], None], session: Session) -> Batch:
    check(session)
    if stream.after >= reading.size(session):
        raise InvalidCursor("The log has no such position; begin without one.")
    return stream.read(session, stream.position)


def broadcast_of(app: FastAPI) -> Broadcast:
    """Return what the streams of an application share."""
    broadcast: Broadcast = app.state.events
    return broadcast
