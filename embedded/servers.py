"""A private PostgreSQL and a private Valkey on one state folder.

    with Servers(Path(".lethe")) as servers:
        connect(servers.database_url, servers.broker_url)

They listen on the loopback interface, on ports of their own, want passwords, and end with the
process that started them, however that ends. The data survive.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from embedded.errors import ProgramFailed
from embedded.placement import SHARED, Binaries, installed, place
from embedded.postgres import Postgres
from embedded.server import Server, Site
from embedded.state import Claim, claim
from embedded.valkey import Valkey

# An empty database takes 8 MB, the server's log of changes at most 1 GB.
ROOM_BYTES = 2 * 1024**3


@contextmanager
def temporary_servers() -> Iterator["Servers"]:
    """Both servers, not durable, in a folder that is removed at the end: for tests.

    pytest's own temporary folders are closed to the account that runs the servers for root, and
    the data would be left outside of them. Drop the databases that you make: they may take memory.
    """
    folder = temporary_place() / f"lethe-{secrets.token_hex(8)}"
    try:
        with Servers(folder, durable=False) as servers:
            yield servers
    finally:
        remove(folder)


def temporary_place() -> Path:
    """Where short-lived folders lie: in memory if there is room, where databases come ten times
    faster than on a busy disk, or else in the system's temporary folder.
    """
    memory = Path("/dev/shm")  # noqa: S108  the folders made here have random names
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES:
        return memory
    return Path(tempfile.gettempdir()).resolve()


def remove(folder: Path) -> None:
    """Remove a state folder with its data, wherever these lie; nothing may run on it."""
    if (folder / "data").is_symlink():
        shutil.rmtree(os.path.realpath(folder / "data"), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


class Servers:
    """Both servers, or one of them. `postgres` and `valkey` can be killed and restarted singly."""

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        only: Literal["postgres", "valkey"] | None = None,
        binaries: Binaries | None = None,
        shared: Path = SHARED,
    ) -> None:
        """Starts nothing yet.

        `durable=False` is for tests: no fsync, so that a crash of the machine loses the data.
        `only` starts one kind of server. `binaries` and `shared` say where the programs are, and
        where root puts what another account cannot reach in place.
        """
        self.folder = Path(folder).resolve()
        self._durable = durable
        self._only = only
        self._binaries = binaries
        self._shared = shared
        self._resources = ExitStack()
        self._servers: tuple[Postgres, Valkey] | None = None

    def start(self) -> Self:
        """Claim the folder and start; on any failure nothing is left running."""
        with ExitStack() as resources:
            binaries = self._binaries or installed()
            claimed = resources.enter_context(claim(self.folder))
            placement = place(self.folder, binaries, created=claimed.created, shared=self._shared)
            site = Site(claimed, placement, self._durable)
            self._servers = (Postgres(site), Valkey(site))
            for server in self.started:
                resources.callback(server.stop)
                server.start()
            self._resources = resources.pop_all()
        return self

    def stop(self) -> None:
        """Stop in reverse order and give the folder back; does nothing a second time."""
        self._resources.close()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def postgres(self) -> Postgres:
        """PostgreSQL alone: kill it, restart it."""
        return self._both()[0]

    @property
    def valkey(self) -> Valkey:
        """Valkey alone: kill it, restart it."""
        return self._both()[1]

    @property
    def started(self) -> list[Server]:
        """The servers that were asked for, in the order of their start."""
        return [server for server in self._both() if self._only in (None, server.name)]

    @property
    def database_url(self) -> str:
        """The service's database, for SQLAlchemy with psycopg."""
        return self.postgres.url

    @property
    def broker_url(self) -> str:
        """The broker, for Celery and redis-py."""
        return self.valkey.url

    @property
    def claim(self) -> Claim:
        """The state folder that is in use, with its secrets."""
        return self.postgres.site.claim

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each server by its name."""
        return {server.name: server.pid for server in self.started}

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a fresh database, as a copy of `template`; returns its URL."""
        return self.postgres.create_database(name, template)

    def drop_database(self, name: str) -> None:
        """Remove a database."""
        self.postgres.drop_database(name)

    def _both(self) -> tuple[Postgres, Valkey]:
        if self._servers is None:
            raise ProgramFailed("the servers were not started")
        return self._servers
