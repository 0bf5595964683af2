"""What PostgreSQL and Valkey have in common: a private server on a port of its own."""

import os
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import ProgramFailed
from embedded.placement import Placement
from embedded.running import Running
from embedded.state import Claim

HOST = "127.0.0.1"
# Crash recovery after a SIGKILL replays the log first; an ordinary start takes a fifth of a second.
START_SECONDS = 60.0
# What a server logs that lost the race for its port, or whose predecessor is not quite gone.
PORT_TAKEN = "Address already in use"
PREDECESSOR_LIVES = ("pre-existing shared memory block", 'lock file "postmaster.pid" already')


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how a server runs."""

    claim: Claim
    placement: Placement
    durable: bool  # false: fast, and gone when the machine (not the program) crashes


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """All that the servers get of our environment: no settings for other servers, no secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


class Server(ABC):
    """A private server. Its port is chosen at the first start and stays over restarts."""

    name: str
    stop_signal: str
    grace_seconds = 20.0
    ready_line: str

    def __init__(self, site: Site) -> None:
        """Does not start it."""
        self.site = site
        self.port: int | None = None
        self.running: Running | None = None

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        if self.running is None:
            raise ProgramFailed(f"{self.name} was not started")
        return self.running.pid

    def start(self) -> Running:
        """Start it and wait until it answers; a lost race for the port is run again."""
        deadline, pause = time.monotonic() + START_SECONDS, 0.05
        chosen_before = self.port is not None
        while True:
            if not chosen_before:
                self.port = free_port()
            try:
                return self._start_once(deadline)
            except ProgramFailed as failure:
                self.stop()
                passing = (PORT_TAKEN, *PREDECESSOR_LIVES)
                if time.monotonic() > deadline or not any(line in failure.tail for line in passing):
                    raise
            except BaseException:
                self.stop()
                raise
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def stop(self) -> None:
        """End it in order; does nothing when it does not run."""
        if self.running is not None:
            self.running.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        if self.running is not None:
            self.running.kill()

    def restart(self) -> Running:
        """Stop it if it runs, and start it on the same port."""
        self.stop()
        return self.start()

    def _start_once(self, deadline: float) -> Running:
        self.prepare()
        self.running = running = self.run(
            self.name, self.command(), self.stop_signal, self.grace_seconds
        )
        # The port is ours once our own server says so. Asking earlier could send a password to
        # somebody else's.
        running.wait_until(lambda: self.ready_line in running.tail(), deadline)
        running.wait_until(self.answers, deadline)
        return running

    def run(self, name: str, command: list[str], stop_signal: str, grace_seconds: float) -> Running:
        """Start one of the server's programs as the account that the placement chose."""
        return Running(
            name,
            command,
            log=self.site.claim.logs / f"{self.name}.log",
            environment=environment(),
            cwd=Path("/"),  # every account can enter it
            stop_signal=stop_signal,
            grace_seconds=grace_seconds,
            account=self.site.placement.account,
            held=[self.site.claim.lock],
        )

    def own(self, path: Path) -> None:
        """Hand a path that was just made to the account that runs the server."""
        if (account := self.site.placement.account) is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)

    @abstractmethod
    def prepare(self) -> None:
        """Write what the server needs before it starts."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line, without secrets: every user can read it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client with our password reaches the very server that we started."""
