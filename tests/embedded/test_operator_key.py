"""The operator's key is shown once, and only its digest is kept."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from app.settings import Settings
from embedded import __main__ as cli
from embedded import state
from embedded.commands import API_KEY, API_KEY_DIGEST, SECRETS, Program
from embedded.errors import FolderRefused, ProgramFailed, SettingsRefused
from embedded.operator_key import digest_of, make
from embedded.servers import Servers
from embedded.state import SECRETS_FILE, claim
from embedded.supervisor import BROKER_URL, DATABASE_URL, ROOT, Supervisor

stand_ins = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))["programs"]


@pytest.fixture(autouse=True)
def _with_servers_and_without_keys(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DATABASE_URL, servers.database_url)
    monkeypatch.setenv(BROKER_URL, servers.broker_url)


@pytest.fixture
def service(folder: Path, place: Path) -> Callable[..., Supervisor]:
    """A service on the folder, with stand-ins; its API answers with its environment."""

    def make_one(**options: str) -> Supervisor:
        return Supervisor(folder, port=0, programs=stand_ins(place), migrations=None, **options)

    return make_one


@pytest.fixture
def serve(service: Callable[..., Supervisor], monkeypatch, capfd) -> Callable[[], str]:
    """Run `serve` until it is up; returns what it said of the key."""

    def run() -> str:
        started = service()
        started.wait = lambda: None
        with monkeypatch.context() as patch:
            patch.setattr(cli, "stop_at_first_signal", lambda: None)
            assert cli.run(started) == 0
        [line] = [each for each in capfd.readouterr().out.splitlines() if "API key" in each]
        return line.removeprefix("API key").strip()

    return run


def replace_key(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedded", "new-key", "--folder", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / SECRETS_FILE).read_text())


def as_left_by_an_earlier_release(folder: Path, key: object) -> dict[str, object]:
    """Put a plain key in the place of the digest; returns the whole record."""
    with claim(folder):
        pass
    old = {"api_key": key, **record(folder)}
    del old["api_key_digest"]
    (folder / SECRETS_FILE).write_text(json.dumps(old))
    return old


def environment_of(supervisor: Supervisor) -> dict[str, str]:
    return httpx2.get(supervisor.url, trust_env=False).json()


def holding(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / SECRETS_FILE in files
    return [path for path in files if text.encode() in path.read_bytes()]


def test_the_key_is_shown_at_the_first_start_alone(
    serve: Callable[[], str], folder: Path, monkeypatch
):
    key, said = serve().split(maxsplit=1)
    assert said == "(shown this once: keep it)"
    assert record(folder)["api_key_digest"] == digest_of(key)
    again = serve()
    assert key not in again
    assert f"`python -m embedded new-key --folder {folder}`" in again
    monkeypatch.setenv(API_KEY, "chosen by the user")
    assert serve() == "that of LETHE_API_KEY"
    monkeypatch.delenv(API_KEY)
    monkeypatch.setenv(API_KEY_DIGEST, digest_of("chosen by the user"))
    assert serve() == "that of LETHE_API_KEY_DIGEST"
    assert record(folder)["api_key_digest"] == digest_of(key)


def test_neither_the_folder_nor_a_process_holds_the_key(
    service: Callable[..., Supervisor], folder: Path
):
    with service() as running:
        key = running.take_new_key()
        assert key is not None
        assert running.take_new_key() is None
        assert environment_of(running)[API_KEY_DIGEST] == digest_of(key)
        assert API_KEY not in environment_of(running)
        seen = [
            Path(f"/proc/{pid}/{what}").read_bytes()
            for pid in running.processes().values()
            for what in ("environ", "cmdline")
        ]
        assert any(digest_of(key).encode() in each for each in seen)
        assert not [each for each in seen if key.encode() in each]
    assert holding(folder, key) == []
    assert holding(folder, digest_of(key)) == [folder / SECRETS_FILE]


def test_the_key_of_a_start_that_failed_is_lost_on_nobody(
    serve: Callable[[], str], folder: Path, place: Path
):
    broken = Program("api", (sys.executable, "-c", "import sys; sys.exit(3)"))
    failing = Supervisor(folder, port=0, programs=[broken], migrations=None)
    with pytest.raises(ProgramFailed):
        failing.start()
    assert failing.take_new_key() is None
    assert record(folder)["api_key_digest"] == ""
    assert serve().startswith("lethe_")


def test_the_key_of_an_earlier_release_goes_on_and_only_its_digest_stays(
    service: Callable[..., Supervisor], folder: Path
):
    key = make()
    old = as_left_by_an_earlier_release(folder, key)
    with service() as running:
        assert environment_of(running)[API_KEY_DIGEST] == digest_of(key)
        assert running.take_new_key() is None
    expected = {name: value for name, value in old.items() if name != "api_key"}
    assert record(folder) == {**expected, "api_key_digest": digest_of(key)}
    assert holding(folder, key) == []
    assert (folder / SECRETS_FILE).stat().st_mode & 0o777 == 0o600


def test_a_crash_while_the_key_is_replaced_loses_nothing(tmp_path: Path, monkeypatch):
    key = make()
    old = as_left_by_an_earlier_release(tmp_path, key)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("embedded.files.os.replace", fail)
        with pytest.raises(OSError, match="disk is full"), claim(tmp_path):
            pass
    assert record(tmp_path) == old
    assert holding(tmp_path, key) == [tmp_path / SECRETS_FILE]
    with claim(tmp_path) as claimed:
        assert claimed.secrets.api_key_digest == digest_of(key)
    assert holding(tmp_path, key) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_stays_theirs(tmp_path: Path):
    as_left_by_an_earlier_release(tmp_path, make())
    os.chown(tmp_path / SECRETS_FILE, 12345, 23456)
    with claim(tmp_path):
        pass
    kept = (tmp_path / SECRETS_FILE).stat()
    assert (kept.st_uid, kept.st_gid) == (12345, 23456)


@pytest.mark.parametrize("key", ["", 1, None])
def test_a_damaged_key_of_an_earlier_release_is_refused(tmp_path: Path, key: object):
    old = as_left_by_an_earlier_release(tmp_path, key)
    with pytest.raises(FolderRefused, match="is damaged"), claim(tmp_path):
        pass
    assert record(tmp_path) == old


@pytest.mark.parametrize("digest", [1, "d" * 64, "sha256:", f"sha256:{'d' * 64}\n"])
def test_a_damaged_digest_is_refused_and_not_quoted(tmp_path: Path, digest: object):
    with claim(tmp_path):
        pass
    text = json.dumps({**record(tmp_path), "api_key_digest": digest})
    (tmp_path / SECRETS_FILE).write_text(text)
    with pytest.raises(FolderRefused, match="is damaged") as refusal, claim(tmp_path):
        pass
    assert "d" * 64 not in str(refusal.value)
    assert replace_key(tmp_path).returncode == 2
    assert (tmp_path / SECRETS_FILE).read_text() == text


def test_a_new_key_is_shown_once_and_replaces_the_old_one(
    service: Callable[..., Supervisor], folder: Path
):
    with service() as running:
        lost = running.take_new_key()
        refused = replace_key(folder)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "already runs" in refused.stderr
        assert record(folder)["api_key_digest"] == digest_of(str(lost))
    before = record(folder)
    done = replace_key(folder)
    key = done.stdout.removesuffix("\n")
    assert done.returncode == 0, done.stderr
    assert key.startswith("lethe_")
    assert key not in done.stderr
    assert key != lost
    assert record(folder) == {**before, "api_key_digest": digest_of(key)}
    assert holding(folder, key) == []
    with service() as running:
        assert running.take_new_key() is None
        assert environment_of(running)[API_KEY_DIGEST] == digest_of(key)


def test_a_folder_without_a_service_gets_no_key_and_stays_as_it_is(folder: Path, tmp_path: Path):
    for none in (folder, tmp_path):
        refused = replace_key(none)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "no service's state" in refused.stderr
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_new_key_says_when_another_goes_before_it(folder: Path, monkeypatch):
    with claim(folder):
        pass
    monkeypatch.setenv(API_KEY, "chosen by the user")
    done = replace_key(folder)
    assert "LETHE_API_KEY is set here, and goes before it" in done.stderr
    assert "chosen by the user" not in done.stdout + done.stderr
    assert record(folder)["api_key_digest"] == digest_of(done.stdout.strip())


@pytest.mark.parametrize("name", [API_KEY, API_KEY_DIGEST])
def test_a_key_of_the_users_goes_before_the_folders_and_makes_none(
    service: Callable[..., Supervisor], folder: Path, monkeypatch, name: str
):
    monkeypatch.setenv(name, "as the user gave it")
    with service() as running:
        assert running.take_new_key() is None
        seen = environment_of(running)
        assert {each: seen.get(each) for each in (API_KEY, API_KEY_DIGEST)} == {
            **dict.fromkeys((API_KEY, API_KEY_DIGEST)),
            name: "as the user gave it",
        }
    assert record(folder)["api_key_digest"] == ""


def test_a_key_and_a_digest_together_are_refused_before_anything_starts(
    service: Callable[..., Supervisor], folder: Path, monkeypatch
):
    monkeypatch.setenv(API_KEY, "chosen by the user")
    monkeypatch.setenv(API_KEY_DIGEST, digest_of("chosen by the user"))
    with pytest.raises(SettingsRefused, match="both set") as refusal:
        service().start()
    assert "chosen by the user" not in str(refusal.value)
    assert not folder.exists()


def test_a_program_that_starts_the_service_can_bring_its_own_key(
    service: Callable[..., Supervisor], folder: Path, monkeypatch
):
    monkeypatch.setenv(API_KEY, "chosen by the user")
    with service(api_key="a key of the program") as running:
        assert running.take_new_key() is None
        seen = environment_of(running)
    assert (seen.get(API_KEY), seen[API_KEY_DIGEST]) == (None, digest_of("a key of the program"))
    assert record(folder)["api_key_digest"] == ""
    assert holding(folder, "a key of the program") == []


def test_the_digest_is_the_one_that_the_service_understands():
    key = make()
    assert len(key) > 40
    urls = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    settings = Settings(**urls, api_key_digest=digest_of(key))
    assert settings.root_key_digest() == Settings(**urls, api_key=key).root_key_digest()
    assert settings.root_key_digest() == hashlib.sha256(key.encode()).digest()
    assert state.KEY_DIGEST in state.Secrets.__dataclass_fields__
