"""Write events as a stream of the kind that browsers' EventSource reads."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.types import Receive, Scope, Send

from app.events.broadcast import Broadcast
from app.events.reading import Batch, Told
from app.events.watching import Watch, facts_for

log = structlog.get_logger()

# After which a client connects again, in milliseconds.
RETRY = 3_000
# A stream whose client takes nothing is stuck in a write, and ends this many seconds late.
STUCK = 5.0

_END = format_sse_event(event="end", data_str="{}")


@dataclass(slots=True)
class Stream:
    """What one client is told, from some position on."""

    watch: Watch
    read: Callable[[Session, int], Batch]
    """Returns what may concern the watch from a position on."""
    wide: bool
    """Whether the client may see what is not its own."""
    after: int
    """The position that the client has; nothing up to it is told again."""
    breaks: int
    """The breaks that there had been when it was opened; it ends with the next one."""
    position: int = 0
    """Everything before it has been considered."""
    _progress: dict[UUID, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, batch: Batch) -> bytes:
        """Move on past a batch; return what of it is told."""
        self.position = batch.upto
        # The watch is shown all of it, the stream tells what is new to its client.
        shown = [told for told in batch.told if self.watch.shows(told)]
        return b"".join(self._line(told) for told in shown if told.position > self.after)

    def take_progress(self, progress: Mapping[UUID, Mapping[str, Any]]) -> bytes:
        """Return how far the jobs that are followed are, if that is new.

        Without an id: what is told next resumes after the last entry of the log.
        """
        followed = {id_: done for id_, done in progress.items() if self.watch.follows(id_)}
        new = {id_: done for id_, done in followed.items() if self._progress.get(id_) != done}
        self._progress = followed
        return b"".join(
            format_sse_event(event="progress", data_str=json.dumps({"job": str(id_), **done}))
            for id_, done in new.items()
        )

    def _line(self, told: Told) -> bytes:
        data = {
            "at": told.at,
            "event": told.event,
            "subject": str(told.subject),
            "request": None if told.request_id is None else str(told.request_id),
            "facts": facts_for(told, wide=self.wide),
        }
        return format_sse_event(
            id=str(told.position), event=told.event, data_str=json.dumps(data, ensure_ascii=False)
        )


async def events(stream: Stream, broadcast: Broadcast, first: bytes) -> AsyncIterator[bytes]:
    """Yield what a stream tells: what was read for it already, then what comes, until its end.

    It waits for its client with nothing but its position: whoever is slow reads the log again.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + broadcast.limits.lifetime
    yield _opening(stream) + first
    spoke_at, marked = loop.time(), stream.position
    while not _is_over(stream, broadcast) and loop.time() < ends_at:
        news = broadcast.news
        try:
            lines = await _next(stream, broadcast)
        except SQLAlchemyError as error:
            log.warning("events.interrupted", error=type(error).__name__)
            return
        if lines is None and stream.watch.ends:
            yield _END
            return
        lines = lines or stream.take_progress(broadcast.progress)
        if not lines and loop.time() >= spoke_at + broadcast.limits.heartbeat:
            lines = _heartbeat(stream, moved=stream.position > marked)
            marked = stream.position
        if lines:
            yield lines
            spoke_at = loop.time()
        else:
            await _wait(news, min(ends_at, spoke_at + broadcast.limits.heartbeat))


def _is_over(stream: Stream, broadcast: Broadcast) -> bool:
    return broadcast.stopped or broadcast.breaks != stream.breaks


async def _next(stream: Stream, broadcast: Broadcast) -> bytes | None:
    """Return what is told next; None when all that is known was considered."""
    while True:
        batch = broadcast.since(stream.position)
        if batch is None:
            batch = await broadcast.read(stream.read, stream.position)
        if batch.upto <= stream.position:
            return None
        lines = stream.take(batch)
        if lines:
            return lines
        # Long stretches may hold nothing for this stream; others have their turn between them.
        await asyncio.sleep(0)


async def _wait(news: asyncio.Event, until: float) -> None:
    seconds = until - asyncio.get_running_loop().time()
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), max(0.0, seconds))


def _opening(stream: Stream) -> bytes:
    # Whoever loses a stream before its first event goes on from where it began.
    return format_sse_event(id=str(stream.after), retry=RETRY)


def _heartbeat(stream: Stream, *, moved: bool) -> bytes:
    # With the position, so that whoever hears of little need not have all read again.
    return format_sse_event(comment="", id=str(stream.position - 1) if moved else None)


class EventStream(StreamingResponse):
    """A stream as an answer; its lifetime counts for a client that takes nothing, too.

    FastAPI's own kind begins its answer before a route could refuse, and speaks at fixed intervals.
    """

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], lifetime: float) -> None:
        """Take the events, and the time in seconds that they may take."""
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client is gone."""
        try:
            async with asyncio.timeout(self._lifetime + STUCK):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.info("events.stuck")
