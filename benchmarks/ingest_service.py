"""One API process with servers of its own, and a ready model that holds some samples."""

import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.keys import to_pem
from app.privacy import digest_sample_id
from benchmarks.ingest_load import KNOWN
from benchmarks.planning_rows import MODELS, VERSIONS
from embedded.commands import API, API_KEY, ID_KEY, LOG_KEY, MIGRATIONS
from embedded.server import HOST, free_port
from embedded.servers import Servers, remove
from embedded.supervisor import BROKER_URL, DATABASE_URL, READY_SECONDS, ROOT, command_line

PRODUCT, WITH_VALIDATION = "app.serving:create", "benchmarks.ingest_app:create"
MANIFEST = "COPY manifest_entries (model_id, sample_digest) FROM STDIN"


@dataclass(frozen=True, slots=True)
class Service:
    """Where it is, and what it may be asked with."""

    servers: Servers
    port: int
    pid: int
    key: str

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        with self.servers.postgres.connect_as_admin("lethe") as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        return 0 if row is None else int(row[0])

    def peak_mebibytes(self) -> float:
        """Return the most memory that the API process ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


@contextmanager
def running() -> Iterator[Service]:
    """Start all of it; nothing is left at the end."""
    folder = Path(tempfile.gettempdir()).resolve() / f"lethe-ingest-{secrets.token_hex(4)}"
    port = free_port()
    try:
        with Servers(folder) as servers:
            environment = _environment(servers)
            subprocess.run(  # noqa: S603  the service's own command
                command_line(MIGRATIONS, 0), cwd=ROOT, check=True, env=environment
            )
            _fill(servers, environment[ID_KEY].encode())
            command = [part.replace(PRODUCT, WITH_VALIDATION) for part in command_line(API, port)]
            process = subprocess.Popen(command, cwd=ROOT, env=environment)  # noqa: S603  likewise
            try:
                _wait_until_ready(port)
                yield Service(servers, port, process.pid, environment[API_KEY])
            finally:
                process.terminate()
                process.wait()
    finally:
        remove(folder)


def _environment(servers: Servers) -> dict[str, str]:
    # Nobody else's settings, such as limits on how often one may ask.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    return {
        **inherited,
        API_KEY: secrets.token_hex(16),
        ID_KEY: secrets.token_hex(16),
        LOG_KEY: to_pem(Ed25519PrivateKey.generate()),
        DATABASE_URL: servers.database_url,
        BROKER_URL: servers.broker_url,
        "LETHE_MODE": "embedded",
        "LETHE_ARTIFACTS_FOLDER": str(servers.folder / "artifacts"),
        "LETHE_LOG_LEVEL": "error",
    }


def _fill(servers: Servers, id_key: bytes) -> None:
    with servers.postgres.connect_as_admin("lethe") as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in (MODELS, VERSIONS):
            connection.execute(statement, {"models": 1, "samples": KNOWN})
        (model_id,) = connection.execute("SELECT id FROM registered_models").fetchone() or ("",)
        with connection.cursor().copy(MANIFEST) as copy:
            for number in range(KNOWN):
                copy.write_row((model_id, digest_sample_id(id_key, f"known-{number}")))
        connection.execute("VACUUM (ANALYZE) registered_models, manifest_entries")


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"http://{HOST}:{port}/readyz", trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the API did not become ready")
