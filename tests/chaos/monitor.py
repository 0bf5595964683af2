"""Everything that the broker is told, kept in a file, over restarts of the broker."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import redis

from tests.chaos.fleet import POLL_SECONDS, Fleet


class Monitor:
    """A connection that hears every command."""

    def __init__(self, fleet: Fleet) -> None:
        """Start nothing yet."""
        self.path: Path = fleet.folder / "broker.log"
        self._fleet = fleet
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="monitor", daemon=True)

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to listen."""
        self._stopping.set()
        with suppress(redis.RedisError), redis.Redis.from_url(self._fleet.broker_url) as broker:
            broker.ping()  # one more thing to hear, to wake up by
        self._thread.join()

    def _listen(self) -> None:
        with self.path.open("a", buffering=1) as file:
            while not self._stopping.is_set():
                try:
                    self._hear(file)
                except (redis.RedisError, ValueError, OSError):
                    self._stopping.wait(POLL_SECONDS)  # it is being started again

    def _hear(self, file: TextIO) -> None:
        with (
            redis.Redis.from_url(self._fleet.broker_url) as broker,
            broker.monitor() as monitor,
        ):
            while not self._stopping.is_set():
                file.write(json.dumps(monitor.next_command(), default=str) + "\n")
