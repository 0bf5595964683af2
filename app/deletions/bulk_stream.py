"""Read a bulk intake, store it and answer it, all at the same time.

Three tasks, none of which waits for the client in another's place: a client may send everything
before it reads the first answer, and one that does not read must not stop what it sends from being
taken in. What they hold is bounded, and so is the time in which nothing moves.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from anyio.to_thread import run_sync
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import problems
from app.deletions.bulk import Line, Origin, Tally, take
from app.deletions.bulk_lines import Cutter
from app.deletions.bulk_spool import Spool
from app.errors import LetheError, Malformed, TooManyStreams

MEDIA_TYPE = "application/x-ndjson"
# Received and not stored; beyond it nothing is read.
MOST_PENDING_BYTES = 4 * 1024**2
MOST_PENDING_LINES = 2_000
# Answers that the client has not read: those of two million lines.
MOST_UNREAD_BYTES = 256 * 1024**2
SENT_AT_ONCE_BYTES = 64 * 1024


class BulkStream(Response):
    """The answer to a bulk intake, which reads the request while it is written."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        origin: Origin,
        first_line: int,
        *,
        line_limit: int,
        patience: float,
        folder: Path,
        closed: Callable[[], None],
    ) -> None:
        """Take what to do. ``patience`` is how many seconds may pass while nothing moves.

        ``closed`` is called at the end, whatever the end.
        """
        super().__init__()
        del self.headers["content-length"]
        self._origin = origin
        self._next_number = first_line
        self._cutter = Cutter(line_limit)
        self._patience = patience
        self._closed = closed
        self._folder = folder
        self._tally = Tally()
        self._lines: deque[Line] = deque()
        self._pending_bytes = 0
        self._changed = asyncio.Condition()
        self._is_read = self._is_storing = self._is_stored = False
        self._is_started = self._is_writing = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Take the stream in, and answer it.

        Raises:
            LetheError: it broke off before anything of it was answered.

        """
        try:
            with closing(Spool(self._folder)) as self._spool:
                await self._take_in(receive, send)
        finally:
            self._closed()

    async def _take_in(self, receive: Receive, send: Send) -> None:
        try:
            await self._exchange(receive, send)
        except LetheError as error:
            if not self._is_started:
                raise
            # Into a write that got stuck nothing more fits: the answer stays without a last line.
            if not self._is_writing:
                await self._give_up(error, receive, send)

    async def _exchange(self, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._patience) as self._deadline:
                async with asyncio.TaskGroup() as tasks:
                    for task in (self._read(receive), self._store(), self._answer(send)):
                        tasks.create_task(task)
        except TimeoutError:
            raise Malformed("Nothing came for too long. Send the same stream again.") from None
        except BaseExceptionGroup as group:
            # One fails, and so the others are cancelled.
            raise group.exceptions[0] from None

    async def _read(self, receive: Receive) -> None:
        while not self._is_read:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Malformed("The stream broke off. Send it again.")
            self._add(self._cutter.feed(message.get("body", b"")))
            if not message.get("more_body", False):
                self._add(self._cutter.end())
                self._is_read = True
            await self._moved()
            await self._wait(self._has_room)

    async def _store(self) -> None:
        while True:
            await self._wait(lambda: self._lines or self._is_read)
            if not self._lines:
                break
            answers = take(self._next_lines(), self._origin, self._tally)
            # It has limits of its own, and the client cannot hurry it.
            self._is_storing = True
            while await run_sync(self._write_next, answers):
                await self._moved()
            self._is_storing = False
            await self._moved()
        self._spool.write(self._tally.last_line())
        self._is_stored = True
        await self._moved()

    async def _answer(self, send: Send) -> None:
        while True:
            await self._wait(lambda: self._spool.unread or self._is_stored)
            content = await run_sync(self._spool.read, SENT_AT_ONCE_BYTES)
            await self._send(send, content, more=bool(content))
            if not content:
                break
            await self._moved()

    async def _send(self, send: Send, content: bytes, *, more: bool) -> None:
        if not self._is_started:
            self._is_started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._is_writing = True
        await send({"type": "http.response.body", "body": content, "more_body": more})
        self._is_writing = False

    async def _give_up(self, error: LetheError, receive: Receive, send: Send) -> None:
        """Send the answers that there are, and why there will be no more."""
        # Else a client that sends all before it reads would get none of it.
        discarding = asyncio.create_task(_discard(receive))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while content := self._spool.read(SENT_AT_ONCE_BYTES):
                    await self._send(send, content, more=True)
                problem = problems.respond(error.status, error.slug, error.title, error.detail)
                await self._send(send, b'{"problem":%s}\n' % bytes(problem.body), more=False)
        discarding.cancel()

    def _add(self, contents: Iterable[bytes | None]) -> None:
        for content in contents:
            self._lines.append(Line(self._next_number, content))
            self._next_number += 1
            self._pending_bytes += len(content or b"")

    def _next_lines(self) -> list[Line]:
        lines = list(self._lines)
        self._lines.clear()
        self._pending_bytes = 0
        return lines

    def _write_next(self, answers: Iterator[bytes]) -> bool:
        content = next(answers, b"")
        self._spool.write(content)
        return bool(content)

    def _has_room(self) -> bool:
        return (
            len(self._lines) < MOST_PENDING_LINES
            and self._pending_bytes < MOST_PENDING_BYTES
            and self._spool.unread < MOST_UNREAD_BYTES
        )

    async def _wait(self, condition: Callable[[], object]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _moved(self) -> None:
        """Have the others look again, and begin to count anew how long nothing moves."""
        until = None if self._is_storing else asyncio.get_running_loop().time() + self._patience
        self._deadline.reschedule(until)
        async with self._changed:
            self._changed.notify_all()


class Places:
    """How many streams a process takes in at a time: each has threads, a connection and memory."""

    def __init__(self, most: int) -> None:
        """Take how many."""
        self._free = most

    def take(self) -> Callable[[], None]:
        """Take one; return what gives it back.

        Raises:
            TooManyStreams: none is free.

        """
        if not self._free:
            raise TooManyStreams("As many streams are taken in as can be. Come again later.")
        self._free -= 1
        return self._give_back

    def _give_back(self) -> None:
        self._free += 1


async def _discard(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass
