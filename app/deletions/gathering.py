"""Store together what comes at the same time: one transaction, and an outcome for each request.

A transaction costs hardly more for sixteen requests than for one. Who comes alone is written at
once, and what comes meanwhile is the next transaction. That one gives those who were just answered
as long as the last one took to come again, as clients with many requests do.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from app.deletions.nudging import Nudges
from app.deletions.storing import Answer, Describe, store
from app.deletions.submissions import Asked
from app.errors import Unavailable

# One transaction at a time gathers the most; another one begins beside it when it takes long.
WRITERS = 2
LONG_SECONDS = 0.1
# Of one transaction, which keeps all of its answers waiting.
MOST_TOGETHER = 64
MOST_SAMPLES_TOGETHER = 20_000
# Some 100 MiB of digests; more come in only as fast as they are written.
MOST_SAMPLES_WAITING = 1_000_000


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Waiting(Generic[Answer]):
    asked: Asked
    outcome: asyncio.Future[Answer]

    @property
    def samples(self) -> int:
        return len(self.asked.intake.sample_digests)


class Gathering(Generic[Answer]):
    """What waits to be stored by this process; belongs to one event loop."""

    def __init__(self, describe: Describe[Answer]) -> None:
        """Take what makes the answers, within the transaction that stores the requests."""
        self._describe = describe
        self._waiting: deque[_Waiting[Answer]] = deque()
        self._samples = 0
        self._writers: set[asyncio.Task[None]] = set()
        self._began_at = 0.0
        self._expected = 0
        self._is_complete = asyncio.Event()
        self._threads = CapacityLimiter(WRITERS)
        self._nudges = Nudges()

    async def take(self, asked: Asked) -> Answer:
        """Store a request, and return its answer after the commit.

        Raises:
            LetheError: it was refused; nothing of it is stored.
            Unavailable: too much waits to be stored already.
            SQLAlchemyError: the database did not take it.

        """
        if self._samples >= MOST_SAMPLES_WAITING:
            raise Unavailable("Nothing was stored: too much waits for it. Send it again later.")
        loop = asyncio.get_running_loop()
        one: _Waiting[Answer] = _Waiting(asked, loop.create_future())
        self._waiting.append(one)
        self._samples += one.samples
        if len(self._waiting) >= self._expected:
            self._is_complete.set()
        takes_long = loop.time() - self._began_at > LONG_SECONDS
        if not self._writers or (takes_long and len(self._writers) < WRITERS):
            # It begins in the loop's next turn, with all whose requests were read in this one.
            self._writers.add(asyncio.create_task(self._write()))
        return await one.outcome

    async def _write(self) -> None:
        writer = asyncio.current_task()
        try:
            while together := self._next():
                await self._write_one(together)
        finally:
            # Not by a callback of the task, which comes a turn later: whoever came in between would
            # take it for one that still writes.
            self._writers = {other for other in self._writers if other is not writer}

    async def _write_one(self, together: Sequence[_Waiting[Answer]]) -> None:
        asked = [one.asked for one in together]
        loop = asyncio.get_running_loop()
        began_at = self._began_at = loop.time()
        try:
            outcomes = await run_sync(
                store, asked, self._describe, self._nudges.want, limiter=self._threads
            )
        except BaseException:  # this task is cancelled, and nobody else would answer
            for one in together:
                one.outcome.cancel()
            raise
        for one, outcome in zip(together, outcomes, strict=True):
            if one.outcome.done():
                continue  # whoever asked is not there any more
            if isinstance(outcome, Exception):
                one.outcome.set_exception(outcome)
            else:
                one.outcome.set_result(outcome)
        self._nudges.send()
        lasted, self._began_at = loop.time() - began_at, loop.time()
        await self._gather(len(together) + len(self._waiting), lasted)

    async def _gather(self, expected: int, seconds: float) -> None:
        """Wait until as many wait as there were at once, but no longer than this."""
        self._expected = min(expected, MOST_TOGETHER)
        if self._expected > 1 and len(self._waiting) < self._expected:
            self._is_complete.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, LONG_SECONDS)):
                    await self._is_complete.wait()

    def _next(self) -> list[_Waiting[Answer]]:
        together: list[_Waiting[Answer]] = []
        room = MOST_SAMPLES_TOGETHER
        while self._waiting and len(together) < MOST_TOGETHER:
            room -= self._waiting[0].samples
            if together and room < 0:
                break
            together.append(self._waiting.popleft())
            self._samples -= together[-1].samples
        return together
