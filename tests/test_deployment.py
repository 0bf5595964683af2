"""The images and the compose file, checked without an engine; their commands run as processes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener
from uuid import UUID

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.db import transaction
from app.settings import Settings
from app.statuses import ModelStatus
from app.tables import RegisteredModel
from embedded.commands import API, API_KEY, ID_KEY, MIGRATIONS, SCHEDULER, WORKER, Program
from embedded.servers import Servers

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PROGRAMS = {"api": API, "worker": WORKER, "scheduler": SCHEDULER, "migrate": MIGRATIONS}
# In the order of the images: what the API's image has not, neither as packages nor as source.
ABSENT = ("torch", "numpy", "safetensors", "sklearn", "scipy", "embedded", "workers.unlearning")
SECRETS = {
    name: character * 64
    for name, character in zip(
        ("POSTGRES_PASSWORD", "BROKER_PASSWORD", API_KEY, ID_KEY), "abcd", strict=True
    )
}
DEADLINE_SECONDS = 60


def compose(
    *arguments: str, environment: Mapping[str, str] = SECRETS
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(BIN / "docker-compose", "--file", ROOT / "docker-compose.yml"),
            *("--env-file", os.devnull),  # not the developer's own .env
            *("config", *arguments),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return json.loads(compose("--format", "json").stdout)["services"]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str, str]]:
    """Each instruction of the Dockerfile: its stage, its name, the rest of it."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found, stage = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" ")[2]
        if name:
            found.append((stage, name, rest.strip()))
    return found


@pytest.fixture(scope="module")
def copied(instructions: list[tuple[str, str, str]]) -> dict[str, set[str]]:
    """What each stage takes from the build context."""
    stages: dict[str, set[str]] = {}
    for stage, name, rest in instructions:
        if name == "COPY" and "--from=" not in rest:
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            stages.setdefault(stage, set()).update(sources)
    return stages


def in_context(path: str) -> bool:
    """Docker's rule: the last pattern that names the path, or a folder above it, decides."""
    folders = path.split("/")
    above = ["/".join(folders[: depth + 1]) for depth in range(len(folders))]
    included = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        exception, pattern = line.startswith("!"), line.removeprefix("!")
        anywhere, name = pattern.startswith("**/"), pattern.removeprefix("**/")
        if not line or line.startswith("#"):
            continue
        if any(
            fnmatchcase(each.rpartition("/")[2] if anywhere else each, name)
            and (anywhere or each.count("/") == name.count("/"))
            for each in above
        ):
            included = exception
    return included


# ---- what the files say


def test_compose_accepts_the_file_once_all_secrets_are_given() -> None:
    result = compose("--quiet")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("value", [None, ""])
def test_compose_refuses_to_start_without_a_secret(secret: str, value: str | None) -> None:
    given = {name: text for name, text in SECRETS.items() if name != secret}
    result = compose("--quiet", environment=given if value is None else {**given, secret: value})
    assert result.returncode != 0
    assert secret in result.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_compose_runs_the_commands_of_the_embedded_service(
    name: str, services: dict[str, dict]
) -> None:
    filled = [part.format(host="0.0.0.0", port=8000) for part in PROGRAMS[name].command]  # noqa: S104
    assert services[name]["command"] == filled


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_runs_the_command_of_the_embedded_service_by_default(
    name: str, instructions: list[tuple[str, str, str]]
) -> None:
    (command,) = [rest for stage, kind, rest in instructions if (stage, kind) == (name, "CMD")]
    filled = [part.format(host="0.0.0.0", port=8000) for part in PROGRAMS[name].command]  # noqa: S104
    assert json.loads(command) == filled


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_service_gets_at_least_what_the_embedded_one_gets(
    name: str, services: dict[str, dict]
) -> None:
    program: Program = PROGRAMS[name]
    assert program.environment.items() <= services[name]["environment"].items()
    assert stop_grace_seconds(services[name]) >= program.grace_seconds


def test_each_key_goes_to_the_services_that_need_it_and_to_no_other(
    services: dict[str, dict],
) -> None:
    everything = {name: json.dumps(service) for name, service in services.items()}
    for key in (API_KEY, ID_KEY):
        needing = {name for name, program in PROGRAMS.items() if key in program.secrets}
        assert {name for name, text in everything.items() if SECRETS[key] in text} == needing
        assert {name for name, text in everything.items() if key in text} == needing
    # The database's own password gives all that a key of the service could; the broker has none.
    assert SECRETS["POSTGRES_PASSWORD"] not in everything["broker"]
    assert SECRETS["BROKER_PASSWORD"] not in everything["postgres"]


def test_no_secret_stands_in_an_argument_or_goes_into_a_build(services: dict[str, dict]) -> None:
    for service in services.values():
        shown = json.dumps([service.get("command"), service.get("build"), service["image"]])
        assert not any(secret in shown for secret in SECRETS.values())


def test_the_secrets_of_this_test_are_ones_that_the_settings_accept() -> None:
    urls = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    assert Settings(**urls, api_key=SECRETS[API_KEY], id_key=SECRETS[ID_KEY])


def test_only_the_api_is_published_and_only_on_this_machine(services: dict[str, dict]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {name: [port["host_ip"] for port in each] for name, each in ports.items()} == {
        "api": ["127.0.0.1"]
    }


def test_every_service_runs_with_the_least_rights(services: dict[str, dict]) -> None:
    for service in services.values():
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_every_setting_can_be_set_through_compose(services: dict[str, dict]) -> None:
    reachable = {
        name.removeprefix("LETHE_").lower()
        for service in services.values()
        for name in service["environment"]
        if name.startswith("LETHE_")
    }
    # The embedded mode is for one command on one machine, never for compose.
    assert reachable == set(Settings.model_fields) - {"mode"}


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    result = subprocess.run(
        [BIN / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_every_image_runs_as_a_user_that_is_not_root(
    instructions: list[tuple[str, str, str]],
) -> None:
    users: dict[str, str] = {}
    for stage, name, rest in instructions:
        if name == "FROM":
            users[stage] = users.get(rest.split()[0], "0")
        if name == "USER":
            users[stage] = rest
    images = ("api", "worker", "worker-examples")
    assert {users[image] for image in images} == {"10001:10001"}


def test_the_dockerfile_copies_only_what_git_has_and_the_build_context_holds(
    copied: dict[str, set[str]],
) -> None:
    tracked = subprocess.run(
        # A checkout of another account, as CI has it.
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    sources = set().union(*copied.values())
    assert sources >= {"app", "workers", "lethe", "migrations", "alembic.ini"}
    for source in sources:
        files = [path for path in tracked if path == source or path.startswith(source + "/")]
        assert files, f"{source} is not in git"
        assert all(map(in_context, files)), f"{source} is not in the build context"


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", ".venv/bin/python", ".lethe/secrets.json", ".lethe/data/postgres/x"),
        *(".env", ".env.production", "app/.env", "id_key.pem", "secrets/api_key", "tests/x.py"),
        *("artifacts/sha256/ab/abc", "examples/weights.safetensors", "app/__pycache__/x.pyc"),
    ],
)
def test_the_build_context_holds_no_history_secrets_or_data(path: str) -> None:
    assert not in_context(path)


def test_docs_list_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    rows = re.findall(r"^\| `LETHE_(\w+)` \|[^|]+\| ([^|]+?) \|$", text, flags=re.MULTILINE)
    documented = {name.lower(): default.strip("`") for name, default in rows}
    assert len(rows) == len(documented)
    assert set(documented) == set(Settings.model_fields)
    needed = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    for name, field in Settings.model_fields.items():
        if field.is_required():
            assert documented[name] == "required"
        elif field.default is None:
            assert documented[name] == "not set"
        else:
            assert getattr(Settings(**needed, **{name: documented[name]}), name) == field.default


# ---- what the API's image can do without


def test_what_the_api_image_installs_holds_no_torch() -> None:
    # Where the Dockerfile reads it; what these require in turn, as it is installed here.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [(Requirement(line), "") for line in project["dependencies"]]
    installed: set[tuple[str, str]] = set()
    while waiting:
        requirement, wanted_by = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": wanted_by}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {each for at, each in installed if at == name}:
            installed.add((name, extra))
            with suppress(PackageNotFoundError):  # reported below, if it is one of those
                waiting += [(Requirement(line), extra) for line in requires(name) or []]
    names = {name for name, _ in installed}
    assert names >= {"fastapi", "celery", "redis", "psycopg-binary", "starlette"}
    assert names.isdisjoint({"torch", "numpy", "safetensors", "scikit-learn", "scipy"})


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in {absent!r}):
            raise ModuleNotFoundError(f"not in this image: {{name}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize(
    "program",
    [
        "from app.main import create_app; assert create_app().routes",
        "from alembic.config import main; main(['upgrade', 'head'])",
        "from workers.celery_app import app; app.loader.import_default_modules();"
        "assert {'lethe.plan', 'lethe.sweep'} <= set(app.tasks)",
    ],
    ids=["api", "migrations", "scheduler"],
)
def test_a_program_of_the_api_image_starts_without_torch(
    program: str, environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(absent=ABSENT) + program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_api_image_has_neither_torch_nor_the_embedded_service(
    instructions: list[tuple[str, str, str]], copied: dict[str, set[str]]
) -> None:
    ancestors = {stage: rest.split()[0] for stage, name, rest in instructions if name == "FROM"}
    stages, waiting = set(), ["api", "api-packages"]
    while waiting:
        stage = waiting.pop()
        stages.add(stage)
        waiting += [ancestors[stage]] if stage in ancestors else []
    ran = [rest for stage, name, rest in instructions if stage in stages and name == "RUN"]
    assert ran
    assert not any("worker" in command or "torch" in command for command in ran)
    assert "embedded" not in set().union(*(copied.get(stage, set()) for stage in stages))


# ---- the services' own commands, as processes


def stop_grace_seconds(service: Mapping[str, str]) -> int:
    minutes, seconds = re.fullmatch(
        r"(?:(\d+)m)?(?:(\d+)s)?", service["stop_grace_period"]
    ).groups()
    return 60 * int(minutes or 0) + int(seconds or 0)


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
