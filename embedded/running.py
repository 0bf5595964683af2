"""A program in its tether, seen from the process that started it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import ProgramFailed

TETHER = Path(__file__).with_name("tether.py")
# From order to SIGKILL takes the grace period; this is for the tether's own work around it.
TETHER_MARGIN_SECONDS = 5.0
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a program runs as; numbers, because the owner of existing data may have no name."""

    uid: int
    gid: int


def read_from(log: Path, offset: int) -> str:
    """What was logged after `offset` bytes."""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


class Running:
    """One started program. It ends with this object's process, whatever happens to that."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        cwd: Path,
        stop_signal: str = "TERM",
        grace_seconds: float = 10.0,
        account: Account | None = None,
        held: Collection[int] = (),
    ) -> None:
        """Start it. `held` are file descriptors (locks) that stay open until it has ended."""
        self.name = name
        self.log = log
        self._grace_seconds = grace_seconds
        # -I and -S: no search path of the caller's, no site packages; see tether.py.
        tether = [sys.executable, "-I", "-S", str(TETHER)]
        tether += ["--signal", stop_signal, "--grace", str(grace_seconds)]
        if account is not None:
            tether += ["--user", f"{account.uid}:{account.gid}"]
        arrivals, departures = os.pipe()
        with (
            open(arrivals) as report,
            open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output,
        ):
            self.log_offset = output.tell()
            try:
                self._tether = subprocess.Popen(
                    [*tether, "--pid-fd", str(departures), "--", *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=dict(environment),
                    pass_fds=(departures, *held),
                    # Ctrl-C in a terminal goes to its whole foreground group. The starter alone
                    # must get it, to stop its programs in order.
                    start_new_session=True,
                )
            finally:
                os.close(departures)
            reported = report.readline()
        if not reported:
            self.stop()
            raise ProgramFailed(f"{name} cannot be started ({log})", self.tail())
        self.pid = int(reported)

    def tail(self) -> str:
        """The end of what this run logged."""
        return read_from(self.log, self.log_offset)[-TAIL_BYTES:]

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._tether.poll()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end; None when the time is up."""
        try:
            return self._tether.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until(self, ready: Callable[[], bool], deadline: float) -> None:
        """Wait until `ready()`; raises ProgramFailed when the program ends first, or in time."""
        pause = 0.002
        while not ready():
            if self.wait(pause) is not None:
                raise ProgramFailed(f"{self.name} ended early ({self.log})", self.tail())
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{self.name} was not ready in time ({self.log})", self.tail())
            pause = min(pause * 1.5, 0.05)

    def stop(self) -> None:
        """Ask it to end, and make sure that it does."""
        if self._tether.stdin and not self._tether.stdin.closed:
            self._tether.stdin.close()
        if self.wait(self._grace_seconds + TETHER_MARGIN_SECONDS) is None:
            self._tether.kill()  # and the kernel kills the program with it
            self._tether.wait()

    def kill(self) -> None:
        """SIGKILL the program with its whole process group, as a crash would; wait for the end."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(self.pid, signal.SIGKILL)
        self.stop()
