"""Store together what comes at the same time: one transaction, and an outcome for each request.

A commit costs the same for one request as for sixty. Nobody waits for company: whoever comes first
is written at once, and what comes meanwhile is the next transaction.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from app.deletions.intake import Asked
from app.deletions.storing import Answer, Describe, store
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
        self._threads = CapacityLimiter(WRITERS)

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
        takes_long = loop.time() - self._began_at > LONG_SECONDS
        if not self._writers or (takes_long and len(self._writers) < WRITERS):
            # It begins in the loop's next turn, with all whose requests were read in this one.
            writer = asyncio.create_task(self._write())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await one.outcome

    async def _write(self) -> None:
        while together := self._next():
            asked = [one.asked for one in together]
            self._began_at = asyncio.get_running_loop().time()
            try:
                outcomes = await run_sync(store, asked, self._describe, limiter=self._threads)
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
