"""One look at the log for all streams of a process, and the bounds on how many there are."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import anyio.to_thread
import structlog
from sqlalchemy.orm import Session

from app.db import transaction
from app.errors import TooManyRequests, TooManyStreams
from app.events import reading
from app.events.reading import Batch
from app.events.tail import Tail

log = structlog.get_logger()

Result = TypeVar("Result")

# Threads, and so connections to the database, that read for streams. The routes have others.
READERS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on streams; times in seconds."""

    interval: float = 1.0
    """Between two looks at the log."""
    heartbeat: float = 15.0
    """Silence after which a stream says that it lives."""
    lifetime: float = 900.0
    """After which a stream ends, so that load moves to other processes, and that a key which was
    revoked hears no more."""
    per_client: int = 50
    in_all: int = 500
    kept: int = 10_000
    """Events in memory; whoever is further behind reads the log."""


@dataclass(slots=True)
class Broadcast:
    """What the streams of a process share. Used on one event loop; only reading is done elsewhere.

    It looks at the log while there are streams, and not otherwise.
    """

    limits: Limits = field(default_factory=Limits)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something new, and then replaced."""
    breaks: int = 0
    """How often all streams had to end, as when the database went away."""
    stopped: bool = False
    progress: Mapping[UUID, Mapping[str, Any]] = field(default_factory=dict)
    """How far each running job is."""
    _tail: Tail = field(default_factory=lambda: Tail(0))
    _open: Counter[str] = field(default_factory=Counter)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    _looking: asyncio.Task[None] | None = None
    _readers: anyio.CapacityLimiter | None = None

    @property
    def open(self) -> int:
        """How many streams there are."""
        return self._open.total()

    @contextmanager
    def seat(self, client: str) -> Iterator[None]:
        """Hold a place among the streams.

        Raises:
            TooManyRequests: this client has as many as it may.
            TooManyStreams: the process has.

        """
        if self._open[client] >= self.limits.per_client:
            raise TooManyRequests("Close a stream of yours; one for all requests is enough.", 30)
        if self.open >= self.limits.in_all:
            raise TooManyStreams("Come again later, or ask for the resource itself.")
        self._open[client] += 1
        self._left.clear()
        if self._looking is None:
            self._tail = Tail(self.limits.kept)
            self._looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._open -= Counter([client])
            if not self.open:
                self._left.set()

    def since(self, position: int) -> Batch | None:
        """Return what was told from a position on; None if only the log itself reaches so far."""
        return self._tail.since(position)

    def end_all(self) -> None:
        """End all streams that there are now."""
        self.breaks += 1
        self._announce()

    def stop(self) -> None:
        """End all streams, and those that are being opened, too: the process is to end."""
        self.stopped = True
        self.end_all()

    async def finish(self) -> None:
        """Stop, and wait until nobody reads any more, so that no connection outlives the process's.

        Its reading ends with the statement that it waits for.
        """
        self.stop()
        looking = self._looking
        if looking is not None:
            self._left.set()
            await asyncio.wait([looking])

    async def read(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function with a session, in one of the few threads that read for streams."""
        if self._readers is None:
            self._readers = anyio.CapacityLimiter(READERS)
        return await anyio.to_thread.run_sync(
            partial(_in_transaction, function, *arguments), limiter=self._readers
        )

    async def _look(self) -> None:
        try:
            while self.open and not self.stopped:
                seen = await self.read(_look_from, self._tail.size)
                if seen.batch.upto != self._tail.size or seen.progress != self.progress:
                    self._tail.extend(seen.batch.told, seen.batch.upto)
                    self.progress = seen.progress
                    self._announce()
                if seen.batch.upto >= seen.size:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._left.wait(), self.limits.interval)
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait in vain
            log.warning("events.interrupted", error=type(error).__name__)
            self.end_all()
        finally:
            self._looking = None

    def _announce(self) -> None:
        told, self.news = self.news, asyncio.Event()
        told.set()


@dataclass(frozen=True, slots=True)
class _Seen:
    batch: Batch
    size: int
    progress: Mapping[UUID, Mapping[str, Any]]


def _look_from(session: Session, known: int | None) -> _Seen:
    size = reading.size(session)
    if known is None:
        return _Seen(Batch((), size), size, reading.progress(session))
    if size < known:
        raise RuntimeError("the log is shorter than it was")
    return _Seen(reading.of_all(session, known), size, reading.progress(session))


def _in_transaction(function: Callable[..., Result], *arguments: Any) -> Result:
    with transaction() as session:
        return function(session, *arguments)
