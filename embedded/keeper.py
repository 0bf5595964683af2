"""Keeping a program running until somebody says stop."""

import threading
import time
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from embedded.running import Running
from embedded.terminal import say

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# A program that was up for this long did start properly: its next death is a new story.
SETTLED_SECONDS = 60.0
JOIN_SECONDS = 0.2


class Startable(Protocol):
    """What can be kept: a server, or one of the service's own programs."""

    name: str
    running: Running | None

    def start(self) -> Running:
        """Start it, again if need be."""

    def stop(self) -> None:
        """End it in order; harmless when it does not run."""


def next_pause(last_seconds: float | None, up_seconds: float) -> float:
    """How long to wait before a program that was up for so long is started again."""
    if last_seconds is None or up_seconds >= SETTLED_SECONDS:
        return FIRST_PAUSE_SECONDS
    return min(last_seconds * 2, LONGEST_PAUSE_SECONDS)


class Keeper:
    """Watches one started program in a thread, and starts it again when it dies."""

    def __init__(self, program: Startable, journal: FilteringBoundLogger) -> None:
        """Begin to watch."""
        self.program = program
        self._journal = journal.bind(program=program.name)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keep-{program.name}", daemon=True)
        self._thread.start()
        if program.running is not None:
            self._journal.info("program.started", pid=program.running.pid)

    @property
    def pid(self) -> int | None:
        """The program's process id, or None while it is down."""
        running = self.program.running
        return running.pid if running is not None and running.poll() is None else None

    def kill(self) -> None:
        """SIGKILL the program and its process group; it is started again."""
        if self.program.running is not None:
            self.program.running.kill()

    def stop(self) -> None:
        """End the program for good."""
        self._stopping.set()
        self.program.stop()
        while self._thread.is_alive():
            # Again, because the thread may have been in the middle of a start.
            self._thread.join(JOIN_SECONDS)
            self.program.stop()
        self._journal.info("program.stopped")

    def _keep(self) -> None:
        pause = None
        running = self.program.running
        while True:
            started_at, status = time.monotonic(), None
            if running is not None:
                status = running.wait()
            if self._stopping.is_set():
                return
            up_seconds = time.monotonic() - started_at
            pause = next_pause(pause, up_seconds)
            self._journal.warning(
                "program.died",
                status=status,
                up_seconds=round(up_seconds, 1),
                restart_in_seconds=pause,
            )
            say(f"{self.program.name} ended (status {status}); it starts again in {pause:.0f} s")
            if self._stopping.wait(pause):
                return
            running = self._start_again()

    def _start_again(self) -> Running | None:
        try:
            running = self.program.start()
        except Exception as error:  # noqa: BLE001  a thread that ended would keep nothing
            self._journal.error("program.start_failed", error=str(error))
            return None
        self._journal.info("program.restarted", pid=running.pid)
        return running
