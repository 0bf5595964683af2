"""One PostgreSQL and one Redis-protocol server for the run, a fresh database for each test."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient

from app import db, keys, queue
from app.artifacts import ArtifactStore
from app.db import transaction
from app.privacy import digest_sample_id, key_id
from app.registry import checking
from app.registry import service as registry
from app.settings import settings
from embedded.servers import Servers, temporary_servers
from lethe.policy import Policy

ROOT = Path(__file__).parents[1]
TEMPLATE = "lethe_template"
API_KEY = "test-api-key-" + "a" * 32
ID_KEY = "test-id-key-" + "b" * 32
# New ones for each run; those of the embedded mode would be refused.
LOG_KEY = keys.to_pem(Ed25519PrivateKey.generate())
WEIGHTS_KEY = keys.to_pem(generate_private_key(SECP256R1()))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with temporary_servers() as started:
        url = started.create_database(TEMPLATE)
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            check=True,
            env={**os.environ, "LETHE_DATABASE_URL": url, "LETHE_BROKER_URL": started.broker_url},
        )
        yield started


@pytest.fixture
def environment(servers: Servers, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give this process, and those that it starts with this, a database and a store of its own."""
    name = "test_" + secrets.token_hex(6)
    values = {
        "LETHE_DATABASE_URL": servers.create_database(name, TEMPLATE),
        "LETHE_BROKER_URL": servers.broker_url,
        "LETHE_API_KEY": API_KEY,
        "LETHE_ID_KEY": ID_KEY,
        "LETHE_LOG_KEY": LOG_KEY,
        "LETHE_WEIGHTS_KEY": WEIGHTS_KEY,
        "LETHE_ARTIFACTS_FOLDER": str(tmp_path / "artifacts"),
        "LETHE_PLAN_INTERVAL": "0.5",
        "LETHE_LEASE": "4",
        # Tests that make a job fail claim it again at once.
        "LETHE_RETRY_DELAY": "0.000001",
        "LETHE_TORCH_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with redis.Redis.from_url(servers.broker_url) as broker:
        broker.flushall()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        _forget_settings()
        yield {**os.environ}
    _forget_settings()
    servers.drop_database(name)


@pytest.fixture
def reread(environment: dict[str, str]) -> Iterator[Callable[[str, str], None]]:
    """Change a variable and make this process read its settings anew."""
    with pytest.MonkeyPatch.context() as patch:

        def change(name: str, value: str) -> None:
            patch.setenv(name, value)
            _forget_settings()

        yield change
    _forget_settings()


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[TestClient]:
    """The API in this process, called by somebody with the key."""
    from app.main import create_app

    headers = {"Authorization": f"Bearer {API_KEY}"}
    with TestClient(create_app(), headers=headers) as client:
        yield client


@pytest.fixture
def digest(environment: dict[str, str]) -> Callable[[str], bytes]:
    """The digest that stands for a sample ID in this database."""
    return lambda sample_id: digest_sample_id(ID_KEY.encode(), sample_id)


@pytest.fixture
def register(environment: dict[str, str]) -> Callable[..., UUID]:
    """Register a model that is still being checked."""

    def make(name: str = "digits", policy: Policy | None = None) -> UUID:
        store = ArtifactStore(settings().artifacts_folder)
        stored = store.put([name.encode()])
        with transaction() as session:
            chosen = Policy() if policy is None else policy
            return registry.register(session, name, "digits", stored.digest, chosen).id

    return make


@pytest.fixture
def accept(digest: Callable[[str], bytes]) -> Callable[[UUID, Sequence[str]], None]:
    """Make a model ready, as a worker does that found these samples in its recipe."""

    def make(model_id: UUID, sample_ids: Sequence[str]) -> None:
        digests = [digest(sample_id) for sample_id in sample_ids]
        with transaction() as session:
            check = checking.start_check(session, model_id, timedelta(minutes=1))
            assert check is not None
            checking.replace_manifest(session, check, digests)
        found = checking.Found(
            len(digests), "sha256:" + "0" * 64, key_id(ID_KEY.encode()), size_bytes=1
        )
        with transaction() as session:
            checking.accept(session, check, found)

    return make


@pytest.fixture
def reject(environment: dict[str, str]) -> Callable[..., None]:
    """Reject a model, as a worker does that found these problems."""

    def make(model_id: UUID, *problems: dict[str, str]) -> None:
        with transaction() as session:
            check = checking.start_check(session, model_id, timedelta(minutes=1))
            assert check is not None
            checking.reject(session, check, problems)

    return make


@pytest.fixture
def ready(
    register: Callable[..., UUID], accept: Callable[[UUID, Sequence[str]], None]
) -> Callable[..., UUID]:
    """Register a model that was trained on the samples, and make it ready."""

    def make(
        name: str = "digits",
        samples: Sequence[str] = ("a", "b", "c"),
        policy: Policy | None = None,
    ) -> UUID:
        model_id = register(name, policy)
        accept(model_id, samples)
        return model_id

    return make


def _forget_settings() -> None:
    if db._engine.cache_info().currsize:  # noqa: SLF001
        db.engine().dispose()
    for cached in (
        settings,
        keys.log_key,
        keys.weights_key,
        db._engine,  # noqa: SLF001
        db._sessions,  # noqa: SLF001
        queue._producer,  # noqa: SLF001
    ):
        cached.cache_clear()
