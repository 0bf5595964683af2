"""The whole service on one machine: servers, migrations, API, worker and scheduler."""

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import structlog
from structlog.typing import FilteringBoundLogger

from embedded import operator_key
from embedded.commands import API_KEY, API_KEY_DIGEST, MIGRATIONS, PROGRAMS, Program
from embedded.environment import environment_for, secrets_of
from embedded.errors import ProgramFailed, SettingsRefused
from embedded.keeper import Keeper
from embedded.running import Running
from embedded.server import HOST, free_port
from embedded.servers import Servers
from embedded.signing_keys import HOST_NAME
from embedded.state import DEFAULT_FOLDER, Claim, claim, keep_key_digest
from embedded.terminal import Tail

DEFAULT_PORT = 8000
DATABASE_URL = "LETHE_DATABASE_URL"
BROKER_URL = "LETHE_BROKER_URL"
READY_SECONDS = 60.0
MIGRATION_SECONDS = 600.0
# Where the packages lie side by side: the programs find `app` and `workers` from here, and Alembic
# its settings.
ROOT = Path(__file__).resolve().parent.parent
# Started as modules of this very Python, wherever its scripts lie.
MODULES = frozenset({"alembic", "celery", "uvicorn"})


def urls_from_environment() -> tuple[str, str] | None:
    """The user's own database and broker; None when the private ones are wanted."""
    database, broker = os.environ.get(DATABASE_URL), os.environ.get(BROKER_URL)
    if database and broker:
        return database, broker
    if database or broker:
        raise SettingsRefused(
            f"only {DATABASE_URL if database else BROKER_URL} is set. Set both {DATABASE_URL} and "
            f"{BROKER_URL} to use servers of your own, or neither to use private ones."
        )
    return None


def check_port(port: int) -> int:
    """The port to listen on; 0 means any free one."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        # As the API itself will: connections of an earlier run that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsRefused(
                f"port {port} cannot be used ({error.strerror}). Choose another one, as in "
                f"--port {port + 1 if 1024 <= port < 65535 else DEFAULT_PORT}, or --port 0 for any."
            ) from None
    return port


def command_line(program: Program, port: int) -> list[str]:
    """What to execute for a program."""
    filled = [part.format(host=HOST, port=port) for part in program.command]
    return [sys.executable, "-m", *filled] if filled[0] in MODULES else filled


class Application:
    """One of the service's own programs, ready to be started as often as needed."""

    def __init__(
        self, program: Program, port: int, environment: Mapping[str, str], claimed: Claim
    ) -> None:
        """Does not start it."""
        self.name = program.name
        self.running: Running | None = None
        self._program = program
        self._command = command_line(program, port)
        self._environment = environment
        self._claim = claimed

    def start(self) -> Running:
        """Start it; being ready is another matter."""
        self.running = Running(
            self.name,
            self._command,
            log=self._claim.logs / f"{self.name}.log",
            environment=self._environment,
            cwd=ROOT,
            stop_signal=self._program.stop_signal,
            grace_seconds=self._program.grace_seconds,
            held=[self._claim.lock],
        )
        return self.running

    def stop(self) -> None:
        """End it in order."""
        if self.running is not None:
            self.running.stop()


class Supervisor:
    """Starts everything in order, restarts what dies, and stops everything in reverse order.

    It is a context manager, for a terminal program, a demo and tests alike.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        port: int = DEFAULT_PORT,
        programs: Sequence[Program] = PROGRAMS,
        migrations: Program | None = MIGRATIONS,
        durable: bool = True,
        verbose: bool = False,
        api_key: str | None = None,
    ) -> None:
        """Starts nothing yet. The program called `api` is the one that has to answer /readyz.

        `api_key` is the operator's for this object's starts, before that of the environment and
        that of the folder, which stays as it is. Only its digest is kept, and only in memory.
        """
        self.folder = Path(folder).resolve()
        self.logs = self.folder / "logs"
        self.url = ""
        self.urls = ("", "")  # of the database and of the broker, with their passwords
        self._asked_port = port
        self._programs = programs
        self._migrations = migrations
        self._durable = durable
        self._verbose = verbose
        self._key_digest = None if api_key is None else operator_key.digest_of(api_key)
        self._new_key: str | None = None
        self._keepers: dict[str, Keeper] = {}
        self._resources = ExitStack()
        self._stopped = threading.Event()

    def start(self) -> Self:
        """Start everything; returns when the API is ready. On failure nothing is left running."""
        self._new_key = None
        with ExitStack() as resources:
            urls = urls_from_environment()
            if self._key_digest is None:
                operator_key.variable_in_use()
            port = check_port(self._asked_port)
            self.url = f"http://{HOST}:{port}"
            if urls is None:
                servers = resources.enter_context(Servers(self.folder, durable=self._durable))
                claimed, urls = servers.claim, (servers.database_url, servers.broker_url)
            else:
                servers, claimed = None, resources.enter_context(claim(self.folder))
            self.urls = urls
            if self._verbose:
                resources.enter_context(Tail(self.logs))
            journal = self._journal(resources)
            for server in servers.started if servers else ():
                self._keep(Keeper(server, journal), resources)
            self._start_programs(claimed, urls, port, journal, resources)
            self._resources = resources.pop_all()
        return self

    def stop(self) -> None:
        """Stop everything: scheduler, worker, API, then the servers. Once is enough."""
        self._resources.close()
        self._stopped.set()

    def take_new_key(self) -> str | None:
        """The operator's key if the last start made it: this once, since nobody keeps it."""
        key, self._new_key = self._new_key, None
        return key

    def wait(self) -> None:
        """Wait until somebody calls stop()."""
        self._stopped.wait()

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

    def processes(self) -> dict[str, int]:
        """The process id of each program that runs now, servers included; not of its tether."""
        return {name: pid for name, keeper in self._keepers.items() if (pid := keeper.pid)}

    def kill(self, name: str) -> None:
        """SIGKILL a program's whole process group; it is started again in about a second."""
        self._keepers[name].kill()

    def ready(self) -> bool:
        """Whether the API says that it can serve."""
        try:
            # trust_env: a proxy from the environment must not get this.
            answer = httpx2.get(f"{self.url}/readyz", timeout=5, trust_env=False)
        except httpx2.HTTPError:
            return False
        return answer.status_code == httpx2.codes.OK

    def _start_programs(
        self,
        claimed: Claim,
        urls: tuple[str, str],
        port: int,
        journal: FilteringBoundLogger,
        resources: ExitStack,
    ) -> None:
        artifacts = claimed.folder / "artifacts"
        artifacts.mkdir(mode=0o700, exist_ok=True)
        service = {
            "LETHE_MODE": "embedded",
            "LETHE_ARTIFACTS_FOLDER": str(artifacts),
            "LETHE_OPENDSR_DOMAIN": f"{HOST_NAME}:{port}",
            "PYTHONUNBUFFERED": "1",
            DATABASE_URL: urls[0],
            BROKER_URL: urls[1],
        }
        secrets, new_key = self._secrets(claimed)
        if self._migrations is not None:
            environment = environment_for(self._migrations, service, secrets)
            run_to_end(Application(self._migrations, port, environment, claimed))
        api: Running | None = None
        for program in self._programs:
            environment = environment_for(program, service, secrets)
            application = Application(program, port, environment, claimed)
            resources.callback(application.stop)
            running = application.start()
            self._keep(Keeper(application, journal), resources)
            if program.name == "api":
                api = running
        if api is not None:
            api.wait_until(self.ready, time.monotonic() + READY_SECONDS)
        if new_key is not None:
            # Only now: a start that failed shows its key to nobody, and the next makes another.
            keep_key_digest(claimed.folder, secrets[API_KEY_DIGEST])
            self._new_key = new_key

    def _secrets(self, claimed: Claim) -> tuple[dict[str, str], str | None]:
        """What the programs may be given, and the operator's key if it was made for that."""
        secrets = secrets_of(claimed.folder, claimed.secrets)
        if self._key_digest is not None:
            return {**secrets, API_KEY: "", API_KEY_DIGEST: self._key_digest}, None
        if secrets[API_KEY] or secrets[API_KEY_DIGEST]:
            return secrets, None
        key = operator_key.make()
        return {**secrets, API_KEY_DIGEST: operator_key.digest_of(key)}, key

    def _keep(self, keeper: Keeper, resources: ExitStack) -> None:
        self._keepers[keeper.program.name] = keeper
        resources.callback(keeper.stop)

    def _journal(self, resources: ExitStack) -> FilteringBoundLogger:
        file = resources.enter_context((self.logs / "supervisor.log").open("a", encoding="utf-8"))
        journal: FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
        )
        return journal


def run_to_end(application: Application) -> None:
    """Run a program that ends by itself; raises ProgramFailed when that went wrong."""
    try:
        running = application.start()
        status = running.wait(MIGRATION_SECONDS)
        if status != 0:
            raise ProgramFailed(f"{application.name} failed ({running.log})", running.tail())
    finally:
        application.stop()
