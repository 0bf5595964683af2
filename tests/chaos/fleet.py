"""The real processes of a run, and all that can be done to them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import redis

from embedded import operator_key
from embedded.commands import API, API_KEY, API_KEY_DIGEST, ID_KEY, SCHEDULER, WORKER, Program
from embedded.environment import environment_for, secrets_of
from embedded.errors import ProgramFailed
from embedded.server import HOST, Server, free_port
from embedded.servers import Servers
from embedded.signing_keys import HOST_NAME
from embedded.supervisor import BROKER_URL, DATABASE_URL, ROOT, Application
from tests.chaos.recipe import RECIPES, TRACES

LEASE_SECONDS = 2.0
READY_SECONDS = 120.0
# How soon a condition is looked at again.
POLL_SECONDS = 0.05
API_NAME, SCHEDULER_NAME = "api", "scheduler"
WORKERS = ("worker-1", "worker-2")
PROGRAMS = (API_NAME, SCHEDULER_NAME, *WORKERS)
SERVERS = ("postgres", "valkey")
# Imported before the fork, so that a child that was killed is replaced in no time. PyTorch itself
# imports the last one at the first step of an optimiser.
PRELOADED = ("workers.run", "tests.chaos.recipe", "torch._dynamo")
FAULTS_FOLDER = Path(__file__).parent / "faults"
SETTINGS = {
    "LETHE_MODE": "embedded",
    "LETHE_LEASE": str(LEASE_SECONDS),
    "LETHE_PLAN_INTERVAL": "0.5",
    "LETHE_JOB_ATTEMPTS": "4",
    "LETHE_RETRY_DELAY": "0.05",
    "LETHE_RETRY_DELAY_LIMIT": "0.5",
    "LETHE_TORCH_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


def program(name: str) -> Program:
    """Return the product's own command line for a process of the fleet."""
    if name == API_NAME:
        return API
    if name == SCHEDULER_NAME:
        return SCHEDULER
    command = [part.replace("worker@", f"{name}@") for part in WORKER.command]
    return replace(WORKER, name=name, command=(*command, "--include", ",".join(PRELOADED)))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has forked and not reaped."""
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def send(pid: int, number: signal.Signals, *, group: bool = False) -> bool:
    """Signal a process, or its whole group; tell whether there was one."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True


class Fleet:
    """A private database and broker, one API, one scheduler, two workers; what dies starts again.

    At once, unlike the product's own keeper, whose pauses would fill most of a run.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], fault: str | None) -> None:
        """Start nothing yet."""
        self.folder = folder
        self.state = folder / "state"
        self.crash_folder = folder / "crash"
        self.url = ""
        self.client_headers: dict[str, str] = {}
        self._environment = dict(environment)
        self._fault = fault
        self._servers = Servers(self.state)
        self._applications: dict[str, Application] = {}
        self._stopping = threading.Event()
        self._keepers: list[threading.Thread] = []
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        """Start everything; return when the API is ready."""
        with ExitStack() as resources:
            for part in (self.crash_folder, self.folder / "site", self.folder / TRACES):
                part.mkdir(parents=True, exist_ok=True)
            install_recipes(self.folder / "site")
            resources.enter_context(self._servers)
            self._migrate()
            self._start_programs(resources)
            self._resources = resources.pop_all()
        self.wait_for_api()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop_programs()
        self._resources.close()

    @property
    def database_url(self) -> str:
        """The service's database, as psycopg takes it."""
        return self._servers.database_url.replace("+psycopg", "")

    @property
    def broker_url(self) -> str:
        """The broker."""
        return self._servers.broker_url

    @property
    def id_key(self) -> bytes:
        """The key of the sample digests."""
        return self._servers.claim.secrets.id_key.encode()

    @property
    def logs(self) -> Path:
        """Where each process writes what it has to say."""
        return self.state / "logs"

    def pid(self, name: str) -> int | None:
        """Return the main process of a program, or None while it is down."""
        running = self._applications[name].running
        return running.pid if running is not None and running.poll() is None else None

    def kill(self, name: str) -> bool:
        """SIGKILL a program's process group, or a server, which is then started again."""
        if name in SERVERS:
            server = self._server(name)
            server.kill()
            server.start()
            return True
        pid = self.pid(name)
        return pid is not None and send(pid, signal.SIGKILL, group=True)

    def kill_child(self, name: str) -> bool:
        """SIGKILL the process in which a worker runs its jobs."""
        pid = self.pid(name)
        return any(send(child, signal.SIGKILL) for child in children_of(pid)) if pid else False

    def kill_main(self, name: str) -> bool:
        """SIGKILL a worker's main process alone."""
        pid = self.pid(name)
        return pid is not None and send(pid, signal.SIGKILL)

    def terminate(self, name: str) -> bool:
        """Ask a program to end in order, as an upgrade would."""
        pid = self.pid(name)
        return pid is not None and send(pid, signal.SIGTERM)

    @contextmanager
    def paused(self, name: str) -> Iterator[bool]:
        """SIGSTOP a program's process group during the block."""
        pid = self.pid(name)
        stopped = pid is not None and send(pid, signal.SIGSTOP, group=True)
        try:
            yield stopped
        finally:
            if pid is not None and stopped:
                send(pid, signal.SIGCONT, group=True)

    def flush(self) -> None:
        """Make the broker forget everything."""
        with redis.Redis.from_url(self.broker_url, socket_timeout=5) as broker:
            broker.flushall()

    def worker_of(self, job_worker: str) -> str | None:
        """Return the worker in whose process a job runs, by the name under which it was claimed."""
        child = int(job_worker.split(":")[1])  # host:pid, and whatever else tells processes apart
        for name in WORKERS:
            pid = self.pid(name)
            if pid is not None and child in children_of(pid):
                return name
        return None

    def wait_for_api(self) -> None:
        """Wait until the API says that it can serve."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise ProgramFailed(f"the API is not ready; see {self.logs}")
            time.sleep(POLL_SECONDS)  # the interval of a poll; the condition is above

    def stop_programs(self) -> None:
        """Stop all programs for good; the servers go on."""
        self._stopping.set()
        for application in self._applications.values():
            application.stop()
        for keeper in self._keepers:
            keeper.join()

    def stop_servers(self) -> None:
        """Stop the servers in order, so that everything they had is on the disk."""
        self._servers.stop()

    def _is_ready(self) -> bool:
        with suppress(httpx2.HTTPError):
            answer = httpx2.get(f"{self.url}/readyz", timeout=5, trust_env=False)
            return answer.status_code == httpx2.codes.OK
        return False

    def _server(self, name: str) -> Server:
        return self._servers.postgres if name == "postgres" else self._servers.valkey

    def _service(self) -> dict[str, str]:
        chosen = {
            **SETTINGS,
            **self._environment,
            "LETHE_ARTIFACTS_FOLDER": str(self.state / "artifacts"),
            "LETHE_CRASH_FOLDER": str(self.crash_folder),
            DATABASE_URL: self._servers.database_url,
            BROKER_URL: self._servers.broker_url,
            "PYTHONPATH": str(self.folder / "site"),
        }
        if self._fault is not None:
            chosen["LETHE_CHAOS_FAULT"] = self._fault
            chosen["PYTHONPATH"] += f"{os.pathsep}{FAULTS_FOLDER}"
        return chosen

    def _migrate(self) -> None:
        (self.state / "artifacts").mkdir(mode=0o700, exist_ok=True)
        with (self.logs / "migrations.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                cwd=ROOT,
                check=True,
                env={**os.environ, **self._service()},
                stdout=log,
                stderr=log,
            )

    def _start_programs(self, resources: ExitStack) -> None:
        claimed = self._servers.claim
        key = operator_key.make()
        secrets = {
            **secrets_of(claimed.folder, claimed.secrets),
            API_KEY: "",
            API_KEY_DIGEST: operator_key.digest_of(key),
            ID_KEY: claimed.secrets.id_key,
        }
        self.client_headers = {"Authorization": f"Bearer {key}"}
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        for name in PROGRAMS:
            described = program(name)
            environment = {
                **environment_for(described, {}, secrets),
                **self._service(),
                "LETHE_OPENDSR_DOMAIN": f"{HOST_NAME}:{port}",
                **{key: secrets[key] for key in described.secrets if secrets[key]},
            }
            application = Application(described, port, environment, claimed)
            self._applications[name] = application
            application.start()
            resources.callback(application.stop)
            thread = threading.Thread(
                target=self._keep, args=(application,), name=f"keep-{name}", daemon=True
            )
            thread.start()
            self._keepers.append(thread)
            resources.callback(self._stopping.set)

    def _keep(self, application: Application) -> None:
        while not self._stopping.is_set():
            running = application.running
            if running is not None:
                running.wait()
            if self._stopping.is_set():
                return
            # A port that is not free yet ends it again, and then it starts again.
            application.start()
        application.stop()


def install_recipes(site: Path) -> None:
    """Write the entry points by which workers find the recipes, as an installed package has."""
    described = site / "lethe_chaos-1.0.dist-info"
    described.mkdir(exist_ok=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: lethe-chaos\nVersion: 1.0\n")
    points = [f"{name} = tests.chaos.recipe:{recipe.__name__}" for name, recipe in RECIPES.items()]
    (described / "entry_points.txt").write_text("\n".join(["[lethe.recipes]", *points, ""]))
