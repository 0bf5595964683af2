import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from embedded.commands import (
    API_KEY,
    API_KEY_DIGEST,
    ID_KEY,
    LOG_KEY,
    LOG_KEY_FILE,
    OPENDSR_CERTIFICATE_FILE,
    OPENDSR_KEY_FILE,
    PROGRAMS,
    SECRETS,
    WEIGHTS_KEY,
    WEIGHTS_KEY_FILE,
    Program,
)
from embedded.errors import FolderRefused, ProgramFailed, SettingsRefused
from embedded.servers import Servers, remove, temporary_place
from embedded.supervisor import BROKER_URL, DATABASE_URL, Supervisor, command_line

STAND_IN = Path(__file__).with_name("stand_in.py")
stand_ins = runpy.run_path(str(STAND_IN))["programs"]
FAILS = (sys.executable, "-c", "import sys; print('it is broken'); sys.exit(3)")


def events_of(supervisor: Supervisor) -> list[dict[str, object]]:
    lines = (supervisor.logs / "supervisor.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url.replace("+psycopg", "")).close()
    except psycopg.OperationalError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for child in children for each in (child, *descendants(child))]


@pytest.fixture(autouse=True)
def _without_the_callers_settings(monkeypatch):
    for name in (DATABASE_URL, BROKER_URL, *SECRETS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def notes() -> Iterator[Path]:
    """Where the stand-ins of the lasting supervisor leave their notes."""
    folder = Path(tempfile.mkdtemp(prefix="lethe-test-", dir=temporary_place()))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def supervisor(notes: Path) -> Iterator[Supervisor]:
    """One that keeps running, for tests that do not stop it."""
    folder = notes.with_name(f"{notes.name}-state")
    with Supervisor(
        folder, port=0, programs=stand_ins(notes), migrations=None, durable=False
    ) as started:
        yield started
    remove(folder)


@pytest.fixture
def serving(used: Path, place: Path):
    """A process that serves with stand-ins."""
    started = []

    def start(*options: str, **popen) -> subprocess.Popen[str]:
        command = [sys.executable, str(STAND_IN), "serve", str(used), str(place), *options]
        started.append(subprocess.Popen(command, text=True, **popen))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_everything_runs_once_the_supervisor_started(supervisor: Supervisor, alive):
    assert httpx2.get(f"{supervisor.url}/readyz", trust_env=False).status_code == 200
    found = supervisor.processes()
    assert set(found) == {"postgres", "valkey", "api", "worker", "scheduler"}
    assert all(map(alive, found.values()))
    assert (supervisor.folder / "artifacts").stat().st_mode & 0o777 == 0o700


def test_each_program_gets_its_own_secrets_and_no_others(
    supervisor: Supervisor, notes: Path, eventually
):
    eventually(lambda: len(list(notes.glob("*.json"))) == 2)
    seen = {path.stem: json.loads(path.read_text()) for path in notes.glob("*.json")}
    seen["api"] = httpx2.get(supervisor.url, trust_env=False).json()
    held = {name: set(SECRETS) & set(found) for name, found in seen.items()}
    assert held == {
        "api": {API_KEY_DIGEST, ID_KEY, LOG_KEY_FILE, OPENDSR_KEY_FILE, OPENDSR_CERTIFICATE_FILE},
        "worker": {ID_KEY, WEIGHTS_KEY_FILE},
        "scheduler": {LOG_KEY_FILE, OPENDSR_KEY_FILE},
    }
    assert seen["api"][LOG_KEY_FILE] == str(supervisor.folder / "log-key.pem")
    assert seen["scheduler"][OPENDSR_KEY_FILE] == str(supervisor.folder / "opendsr-key.pem")
    assert seen["worker"][WEIGHTS_KEY_FILE] == str(supervisor.folder / "weights-key.pem")
    assert seen["worker"]["OMP_WAIT_POLICY"] == "PASSIVE"
    for found in seen.values():
        assert found["LETHE_MODE"] == "embedded"
        assert found["LETHE_ARTIFACTS_FOLDER"] == str(supervisor.folder / "artifacts")
        assert found[DATABASE_URL].startswith("postgresql+psycopg://lethe:")
        assert found[BROKER_URL].startswith("redis://:")


@pytest.mark.parametrize("name", ["api", "valkey", "postgres"])
def test_a_killed_program_is_started_again(supervisor: Supervisor, eventually, name: str):
    before = supervisor.processes()
    database = httpx2.get(supervisor.url, trust_env=False).json()[DATABASE_URL]
    supervisor.kill(name)
    eventually(lambda: supervisor.processes().get(name, before[name]) != before[name])
    eventually(supervisor.ready)
    after = supervisor.processes()
    assert {each for each in before if after[each] != before[each]} == {name}
    eventually(lambda: accepts(database))
    events = events_of(supervisor)
    died = [event for event in events if event["event"] == "program.died"]
    assert (died[-1]["program"], died[-1]["status"]) == (name, 128 + signal.SIGKILL)


def test_a_killed_worker_leaves_no_child_behind(
    supervisor: Supervisor, notes: Path, alive, eventually
):
    eventually(lambda: (notes / "worker.json").exists())
    child = json.loads((notes / "worker.json").read_text())["child"]
    (notes / "worker.json").unlink()
    assert alive(child)
    supervisor.kill("worker")
    assert not alive(child)
    eventually(lambda: (notes / "worker.json").exists())


def test_a_second_supervisor_on_the_folder_is_refused(supervisor: Supervisor):
    with pytest.raises(FolderRefused, match="already runs"):
        Supervisor(supervisor.folder, port=0).start()


def test_a_taken_port_is_refused_before_anything_starts(folder: Path):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        taken = occupied.getsockname()[1]
        with pytest.raises(SettingsRefused, match=rf"port {taken} .*--port"):
            Supervisor(folder, port=taken).start()
    assert not folder.exists()


@pytest.mark.parametrize("name", [DATABASE_URL, BROKER_URL])
def test_one_url_without_the_other_is_refused(folder: Path, monkeypatch, name: str):
    monkeypatch.setenv(name, "redis://127.0.0.1/0")
    with pytest.raises(SettingsRefused, match=f"only {name}"):
        Supervisor(folder, port=0).start()
    assert not folder.exists()


def test_servers_of_the_users_own_are_used_as_they_are(
    folder: Path, place: Path, servers: Servers, monkeypatch, eventually
):
    monkeypatch.setenv(DATABASE_URL, servers.database_url)
    monkeypatch.setenv(BROKER_URL, servers.broker_url)
    monkeypatch.setenv(API_KEY, "chosen by the user")
    monkeypatch.setenv(LOG_KEY, "a key of the user")
    monkeypatch.setenv(WEIGHTS_KEY_FILE, "weights.pem")
    monkeypatch.setenv("LETHE_MODE", "production")
    with Supervisor(folder, port=0, programs=stand_ins(place), migrations=None) as supervisor:
        assert set(supervisor.processes()) == {"api", "worker", "scheduler"}
        seen = httpx2.get(supervisor.url, trust_env=False).json()
        eventually(lambda: (place / "worker.json").exists())
    work = json.loads((place / "worker.json").read_text())
    assert {API_KEY, API_KEY_DIGEST, LOG_KEY, LOG_KEY_FILE, WEIGHTS_KEY} & set(work) == set()
    assert work[WEIGHTS_KEY_FILE] == str(Path("weights.pem").absolute())
    assert seen[LOG_KEY] == "a key of the user"
    assert LOG_KEY_FILE not in seen
    assert (seen[DATABASE_URL], seen[BROKER_URL]) == (servers.database_url, servers.broker_url)
    assert seen[API_KEY] == "chosen by the user"
    assert API_KEY_DIGEST not in seen
    assert seen["LETHE_MODE"] == "production"
    assert not (folder / "data").exists()


def test_migrations_run_to_their_end_first(used: Path, place: Path, eventually):
    leave_a_mark = f"import os; open('{place}/mark', 'w').write(os.environ['{DATABASE_URL}'])"
    migrations = Program("migrations", (sys.executable, "-c", leave_a_mark))
    needs_the_mark = f"import sys; sys.exit(print(open('{place}/mark').read()))"
    only = Program("reader", (sys.executable, "-c", needs_the_mark))
    with Supervisor(
        used, port=0, programs=[only], migrations=migrations, durable=False
    ) as supervisor:
        eventually(lambda: "postgresql+psycopg://" in (supervisor.logs / "reader.log").read_text())


@pytest.mark.parametrize("broken", ["migrations", "api"])
def test_a_start_that_fails_says_why_and_leaves_nothing(
    used: Path, place: Path, alive, eventually, broken: str
):
    program = Program(broken, FAILS)
    started = [each for each in stand_ins(place) if each.name != broken]
    supervisor = Supervisor(
        used,
        port=0,
        programs=[*started, program] if broken == "api" else started,
        migrations=program if broken == "migrations" else None,
        durable=False,
    )
    with pytest.raises(ProgramFailed, match="it is broken"):
        supervisor.start()
    assert supervisor.processes() == {}
    with Servers(used, durable=False, only="valkey"):
        pass  # so the folder was given back


def test_programs_stop_before_what_they_need(used: Path, place: Path, eventually):
    with Supervisor(
        used, port=0, programs=stand_ins(place), migrations=None, durable=False
    ) as supervisor:
        eventually(lambda: len(list(place.glob("*.json"))) == 2)
    assert (place / "ends").read_text().split() == ["scheduler", "worker"]
    events = events_of(supervisor)
    stopped = [event["program"] for event in events if event["event"] == "program.stopped"]
    assert stopped[-5:] == ["scheduler", "worker", "api", "valkey", "postgres"]


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(serving, used: Path, place: Path, eventually, order):
    process = serving(stdout=subprocess.PIPE)
    said = [process.stdout.readline() for _ in range(4)]
    assert re.search(r"http://127\.0\.0\.1:\d+/docs", said[1])
    assert said[2].startswith("API key  ")
    assert "logs" in said[3]
    eventually(lambda: len(list(place.glob("*.json"))) == 2)
    process.send_signal(order)
    assert process.wait(20) == 0
    assert (place / "ends").read_text().split() == ["scheduler", "worker"]


def test_ctrl_c_reaches_the_supervisor_alone(serving, used: Path, place: Path, eventually):
    log = used / "logs" / "supervisor.log"
    process = serving(stdout=subprocess.DEVNULL, start_new_session=True)
    eventually(lambda: len(list(place.glob("*.json"))) == 2)
    started = log.read_text()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(20) == 0
    assert "program.died" not in log.read_text().removeprefix(started)


def test_a_closed_standard_output_keeps_nothing_from_stopping(serving, place: Path, eventually):
    process = serving(stdout=subprocess.PIPE)
    process.stdout.close()
    eventually(lambda: len(list(place.glob("*.json"))) == 2)
    process.terminate()
    assert process.wait(20) == 0
    assert (place / "ends").read_text().split() == ["scheduler", "worker"]


def test_nothing_outlives_a_killed_supervisor(serving, place: Path, alive, eventually):
    process = serving(stdout=subprocess.PIPE)
    while "Logs" not in process.stdout.readline():
        assert process.poll() is None
    eventually(lambda: len(list(place.glob("*.json"))) == 2)
    family = descendants(process.pid)
    assert len(family) > 10  # five tethers, their programs, the children of these
    process.kill()
    eventually(lambda: not any(map(alive, family)))


def test_verbose_repeats_the_logs_under_their_names(serving, eventually):
    process = serving("verbose", stdout=subprocess.PIPE)
    wanted = {"worker | the work begins", "scheduler | the work begins"}
    while wanted:
        line = process.stdout.readline()
        assert line
        wanted.discard(line.strip())


def test_the_real_programs_run_as_modules_of_this_python():
    for program in PROGRAMS:
        line = command_line(program, 1234)
        assert line[:2] == [sys.executable, "-m"]
        assert not [part for part in line if "{" in part]
    assert "--host 127.0.0.1 --port 1234" in " ".join(command_line(PROGRAMS[0], 1234))
