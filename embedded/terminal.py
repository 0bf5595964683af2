"""Speaking to a person who may have stopped listening."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

STDERR = 2  # a file descriptor
TAIL_SECONDS = 0.2


def say(text: str) -> None:
    """Print a line; a closed terminal or pipe must not keep anybody from stopping in order."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):  # ValueError: sys.stdout itself was closed
        # Otherwise Python complains again when it flushes at its own end.
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.close(silence)


def open_standard_streams() -> None:
    """Fill the places of standard streams that were closed, lest a lock or a log land there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


class Tail:
    """Repeats what the programs log, each line with the program's name before it."""

    def __init__(self, logs: Path) -> None:
        """Starts at the end of what is there already."""
        self._logs = logs
        self._read = {log: log.stat().st_size for log in logs.glob("*.log")}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tail", daemon=True)

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say what is left, and end."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        # The programs write into files rather than into a pipe of ours, so that a slow reader
        # cannot stop them; the standard library cannot wait for a file to grow.
        last = False
        while not last:
            last = self._ended.wait(TAIL_SECONDS)
            for log in sorted(self._logs.glob("*.log")):
                self._repeat(log)

    def _repeat(self, log: Path) -> None:
        with log.open("rb") as file:
            file.seek(self._read.get(log, 0))
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    break
                self._read[log] = self._read.get(log, 0) + len(line)
                say(f"{log.stem:>10} | {line.decode(errors='replace').rstrip()}")
