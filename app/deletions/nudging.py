"""Ask for a plan soon after requests are stored, and once for many."""

import asyncio

from anyio.to_thread import run_sync

from app import queue
from app.crash_points import CrashPoint, reach

# After a nudge, until the next one: a planning pass takes in all that was stored before it.
PAUSE_SECONDS = 0.1


class Nudges:
    """Belongs to one event loop. The rows are the promise, so that none has to be sent at all."""

    def __init__(self) -> None:
        """Nothing is wanted yet."""
        self._wanted = False
        self._sending: asyncio.Task[None] | None = None

    def want(self) -> None:
        """Note that something is stored; from any thread."""
        self._wanted = True

    def send(self) -> None:
        """See to it that those are nudged who are to know of it, and wait for nothing."""
        if self._wanted and not self.is_sending:
            self._sending = asyncio.create_task(self._send())

    @property
    def is_sending(self) -> bool:
        """Tell whether one is on its way, or was a moment ago."""
        return self._sending is not None

    async def _send(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                reach(CrashPoint.SUBMIT_BEFORE_NUDGE)
                await run_sync(queue.nudge, queue.PLAN)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._sending = None
