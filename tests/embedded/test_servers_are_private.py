import os
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from embedded.servers import Servers

LISTENING = "0A"  # in the kernel's tables of sockets
LOOPBACK = "0100007F"


def test_nobody_gets_in_without_the_password(servers: Servers):
    for wrong in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host="127.0.0.1",
                port=servers.postgres.port,
                user="lethe_admin",
                password=wrong,
                dbname="postgres",
            )
    with (
        redis.Redis(port=servers.valkey.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's tables of sockets")
def test_the_servers_listen_on_the_loopback_interface_only(servers: Servers):
    for one in (servers.postgres, servers.valkey):
        handles = [os.readlink(path) for path in Path(f"/proc/{one.pid}/fd").iterdir()]
        sockets = {handle[8:-1] for handle in handles if handle.startswith("socket:[")}
        found = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{one.pid}/net/{table}").read_text().splitlines()[1:]:
                local, state, inode = (line.split()[column] for column in (1, 3, 9))
                if inode in sockets and (state == LISTENING or table.startswith("udp")):
                    found.add((table, local))
        assert found == {("tcp", f"{LOOPBACK}:{one.port:04X}")}
        unix = Path(f"/proc/{one.pid}/net/unix").read_text().splitlines()[1:]
        assert not [line for line in unix if line.split()[6] in sockets and "/" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the command lines of all processes")
def test_no_password_ever_stands_on_a_command_line(folder: Path):
    seen, stop = set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except (FileNotFoundError, ProcessLookupError):
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with Servers(folder, durable=False) as servers:
            secrets = [servers.claim.secrets.database_password]
            secrets += [servers.claim.secrets.database_admin_password]
            secrets += [servers.claim.secrets.broker_password]
    finally:
        stop.set()
        watcher.join()
    for program in (b"initdb", b"bin/postgres", b"valkey-server"):
        assert any(program in line for line in seen), "the watcher saw too little"
    assert not [line for line in seen for secret in secrets if secret.encode() in line]


def test_files_with_secrets_are_closed_to_others(servers: Servers):
    data = servers.folder / "data"
    assert (servers.folder / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (data / "valkey.conf").stat().st_mode & 0o777 == 0o600
    assert (data / "postgres").stat().st_mode & 0o777 == 0o700
    assert servers.folder.stat().st_mode & 0o067 == 0
    assert not (data / "password").exists()
