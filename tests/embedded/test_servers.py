import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy

from embedded import server
from embedded.errors import FolderRefused, ServersMissing
from embedded.servers import Servers

# Starts servers, says where, and waits to be killed.
STARTER = """
import json, signal, sys
from pathlib import Path
from embedded.servers import Servers
with Servers(Path(sys.argv[1]), durable=False) as servers:
    print(json.dumps([servers.pids, servers.database_url]), flush=True)
    signal.pause()
"""


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def write(url: str, value: int) -> None:
    with psycopg.connect(plain(url)) as connection:
        connection.execute("DROP TABLE IF EXISTS written")
        connection.execute("CREATE TABLE written (value int)")
        connection.execute("INSERT INTO written VALUES (%s)", [value])


def read(url: str) -> list[int]:
    with psycopg.connect(plain(url)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM written ORDER BY value")]


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    return [each for child in children for each in (child, *descendants(child))]


@pytest.fixture
def starter(used: Path):
    """A process that runs servers on a folder; what it says: their ids, and the database's URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, used], stdout=subprocess.PIPE, text=True
    )
    yield process, *json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_urls_lead_to_a_database_and_a_broker(servers: Servers):
    engine = sqlalchemy.create_engine(servers.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar() == "lethe"
    with redis.Redis.from_url(servers.broker_url) as client:
        assert client.ping()


def test_data_survive_a_restart(folder: Path):
    with Servers(folder) as servers:
        write(servers.database_url, 1)
    with Servers(folder) as servers:
        assert read(servers.database_url) == [1]


def test_each_created_database_is_a_world_of_its_own(servers: Servers):
    one, other = servers.create_database("one"), servers.create_database("other")
    write(one, 1)
    with pytest.raises(psycopg.errors.UndefinedTable):
        read(other)
    assert read(servers.create_database("copy", template="one")) == [1]
    for name in ("one", "other", "copy"):
        servers.drop_database(name)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        read(one)


def test_the_service_is_no_superuser(servers: Servers):
    with psycopg.connect(plain(servers.database_url)) as connection:
        found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert found.fetchone() == (False,)


@pytest.mark.parametrize("durable", [True, False])
def test_the_database_is_durable_unless_told_otherwise(folder: Path, durable: bool):
    wanted = {
        "fsync": durable,
        "full_page_writes": durable,
        "synchronous_commit": durable,
        "data_checksums": True,
    }
    with (
        Servers(folder, durable=durable, only="postgres") as servers,
        psycopg.connect(plain(servers.database_url)) as connection,
    ):
        for name, on in wanted.items():
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert (name, row) == (name, ("on" if on else "off",))
        row = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datlocprovider::text, datlocale "
            "FROM pg_database WHERE datname = 'lethe'"
        ).fetchone()
    assert row == ("UTF8", "b", "C.UTF-8")
    assert list(servers.pids) == ["postgres"]


def test_a_second_start_on_a_folder_in_use_is_refused(starter, used: Path):
    _, _, url = starter
    with pytest.raises(FolderRefused, match="already runs"):
        Servers(used).start()
    write(url, 1)
    assert read(url) == [1]


def test_nothing_outlives_a_killed_starter(starter, alive, eventually):
    process, pids, _ = starter
    family = descendants(process.pid)
    assert set(pids.values()) < set(family)
    process.kill()
    eventually(lambda: not any(map(alive, family)))


def test_a_start_right_after_a_kill_waits_for_what_is_still_ending(starter, used: Path):
    process, _, url = starter
    write(url, 2)
    process.kill()
    process.wait()
    with Servers(used, durable=False) as servers:
        assert read(servers.database_url) == [2]


def test_a_start_recovers_after_everything_was_killed_at_once(starter, used: Path):
    process, pids, _ = starter
    for pid in (process.pid, *descendants(process.pid)):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert str(pids["postgres"]) in (used / "data" / "postgres" / "postmaster.pid").read_text()
    with Servers(used, durable=False) as servers:
        assert servers.create_database("made_after_recovery")
        servers.drop_database("made_after_recovery")


def test_each_server_can_be_killed_and_comes_back_on_its_port(used: Path):
    with Servers(used) as servers:
        write(servers.database_url, 1)
        urls, pids = (servers.database_url, servers.broker_url), servers.pids
        for one in (servers.postgres, servers.valkey):
            one.kill()
            one.restart()
        assert (servers.database_url, servers.broker_url) == urls
        assert not set(servers.pids.values()) & set(pids.values())
        assert read(servers.database_url) == [1]
        with redis.Redis.from_url(servers.broker_url) as client:
            assert client.ping()


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(used: Path):
    with Servers(used, durable=False) as servers:
        servers.postgres.kill()
        pid_file = used / "data" / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        # Of the same account, so that PostgreSQL alone would take it for its predecessor.
        pid_file.write_text("\n".join([str(servers.valkey.pid), *lines[1:]]) + "\n")
        servers.postgres.restart()
        assert (used / "data" / "postgres" / "postmaster.pid").exists()


def test_a_lost_race_for_a_port_is_run_again(used: Path, monkeypatch):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        taken, really_free = occupied.getsockname()[1], server.free_port
        ports = [taken, really_free(), taken, really_free()]
        monkeypatch.setattr(server, "free_port", lambda: ports.pop(0))
        with Servers(used, durable=False) as servers:
            assert taken not in (servers.postgres.port, servers.valkey.port)
            write(servers.database_url, 1)


def test_a_foreign_server_on_the_port_is_never_taken_for_ours(
    used: Path, servers: Servers, monkeypatch
):
    foreign, really_free = [servers.postgres.port, servers.valkey.port], server.free_port
    ports = [foreign[0], really_free(), foreign[1], really_free()]
    monkeypatch.setattr(server, "free_port", lambda: ports.pop(0))
    with Servers(used, durable=False) as own:
        assert not {own.postgres.port, own.valkey.port} & set(foreign)
        assert not set(own.pids.values()) & set(servers.pids.values())


def test_secrets_of_another_folder_are_refused_by_name(used: Path):
    original = (used / "secrets.json").read_text()
    other = json.loads(original) | {"database_admin_password": "of another folder"}
    (used / "secrets.json").write_text(json.dumps(other))
    try:
        with pytest.raises(FolderRefused, match="other secrets"):
            Servers(used, durable=False).start()
    finally:
        (used / "secrets.json").write_text(original)


def test_missing_wheels_are_named_with_the_way_out(folder: Path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ServersMissing) as refusal:
        Servers(folder).start()
    for hint in ("lethe[embedded]", "LETHE_DATABASE_URL", "LETHE_BROKER_URL"):
        assert hint in str(refusal.value)
    assert not folder.exists()


def test_a_kill_in_the_middle_of_the_first_start_leaves_no_half_database(
    folder: Path, eventually: Callable[..., None]
):
    process = subprocess.Popen([sys.executable, "-c", STARTER, folder], stdout=subprocess.DEVNULL)
    eventually(lambda: (folder / "data" / "postgres.new" / "PG_VERSION").exists())
    process.kill()
    process.wait()
    assert not (folder / "data" / "postgres").exists()
    with Servers(folder, durable=False) as servers:
        write(servers.database_url, 1)
