"""The commands of the compose file, run as processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener
from uuid import UUID

import pytest

from app.db import transaction
from app.statuses import ModelStatus
from app.tables import RegisteredModel
from embedded.commands import ID_KEY
from embedded.servers import Servers
from lethe.verify.note import peek
from tests.deployment.composed import BIN, ROOT, stop_grace_seconds

DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """One service of the compose file that runs here, in a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait(self, seconds: float) -> int:
        """Wait for its end and for that of whatever it forked, which all hold its output open."""
        self.process.communicate(timeout=seconds)
        return self.process.returncode


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(
    services: dict[str, dict],
    environment: dict[str, str],
    copied: dict[str, set[str]],
    port: int,
    tmp_path: Path,
) -> Iterator[Callable[..., Service]]:
    """Start a service with its exact command, and with its own environment but for the places."""
    here = {
        name: environment[name]
        for name in ("LETHE_DATABASE_URL", "LETHE_BROKER_URL", "LETHE_ARTIFACTS_FOLDER")
    }
    # As quick as the other tests, and with the key that their rows were made with.
    here |= {"LETHE_PLAN_INTERVAL": "0.5", ID_KEY: environment[ID_KEY]}
    here |= {"LETHE_WITNESS_FILE": str(tmp_path / "heads.jsonl"), "LETHE_HEAD_INTERVAL": "0.5"}
    # A folder with what the image's has, so that nothing else of the checkout is needed there.
    folder = tmp_path / "srv"
    folder.mkdir()
    for name in copied["runtime"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    started: list[Service] = []

    def run(name: str, **replaced: str) -> Service:
        places = {"0.0.0.0": "127.0.0.1", "8000": str(port)}  # noqa: S104
        command = [places.get(part, part) for part in services[name]["command"]]
        own = {key: value for key, value in services[name]["environment"].items() if value}
        log = tmp_path / f"{name}-{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={
                    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                    "HOME": str(tmp_path),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONUNBUFFERED": "1",
                    "OMP_NUM_THREADS": "1",
                    **own,
                    **{
                        key: here[key] for key in here.keys() & services[name]["environment"].keys()
                    },
                    **replaced,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        started.append(Service(process, log))
        return started[-1]

    yield run
    for service in started:
        with suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)
        service.process.stdout.close()
        service.process.wait()


def test_migrate_fills_an_empty_database_and_has_nothing_to_do_the_second_time(
    start: Callable[..., Service], servers: Servers
) -> None:
    url = servers.create_database("deployment_empty")
    try:
        for _ in range(2):
            service = start("migrate", LETHE_DATABASE_URL=url)
            assert service.wait(DEADLINE_SECONDS) == 0, service.log.read_text()
    finally:
        servers.drop_database("deployment_empty")


def test_migrate_fails_when_the_database_is_away(start: Callable[..., Service], port: int) -> None:
    service = start("migrate", LETHE_DATABASE_URL=f"postgresql://lethe@127.0.0.1:{port}/lethe")
    assert service.wait(DEADLINE_SECONDS) != 0


def test_the_api_becomes_ready_and_healthy_and_stops_when_told(
    start: Callable[..., Service],
    services: dict[str, dict],
    instructions: list[tuple[str, str, str]],
    port: int,
) -> None:
    (check,) = [rest for _, name, rest in instructions if name == "HEALTHCHECK"]
    python, *arguments = json.loads(check.partition(" CMD ")[2].replace(":8000/", f":{port}/"))
    assert python == "python"

    def healthy() -> bool:
        # A proxy that is not there must not come between.
        env = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
        probe = subprocess.run(
            [sys.executable, *arguments], env=env, capture_output=True, check=False
        )
        return probe.returncode == 0

    def ready() -> bool:
        try:
            with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/readyz") as answer:
                return json.load(answer)["status"] == "ready"
        except URLError:
            return False

    assert not healthy()
    service = start("api")
    service.wait_until(ready)
    assert healthy()
    service.process.terminate()
    # Uvicorn ends with the signal that it was sent.
    assert service.wait(stop_grace_seconds(services["api"])) in (0, -signal.SIGTERM)


def test_the_scheduler_finds_a_waiting_row_and_the_worker_answers_for_it(
    start: Callable[..., Service], services: dict[str, dict], register: Callable[..., UUID]
) -> None:
    # Nobody was nudged for this row: the scheduler alone can find it, a worker alone can check it.
    model_id = register("deployed")
    running = {name: start(name) for name in ("scheduler", "worker")}

    def checked() -> bool:
        assert running["scheduler"].process.poll() is None, running["scheduler"].log.read_text()
        with transaction() as session:
            return session.get_one(RegisteredModel, model_id).status == ModelStatus.REJECTED

    running["worker"].wait_until(checked)
    for service in running.values():
        service.process.terminate()
    for name, service in running.items():
        assert service.wait(stop_grace_seconds(services[name])) == 0, service.log.read_text()


def test_the_scheduler_signs_the_log_by_itself_and_writes_it_into_the_witness_file(
    start: Callable[..., Service], register: Callable[..., UUID], tmp_path: Path
) -> None:
    register("logged")
    service = start("scheduler")
    written = tmp_path / "heads.jsonl"
    service.wait_until(lambda: written.exists() and written.read_bytes().endswith(b"\n"))
    head = peek(json.loads(written.read_text().splitlines()[0])["checkpoint"])
    assert head.size == 2  # the model that was registered, and the scheduler's own key
