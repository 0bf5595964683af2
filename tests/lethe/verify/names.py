"""Keys, names and times that the tests tell their stories with."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lethe.verify.keys import VerifyingKey
from tests.lethe.verify import naive

ORIGIN = "lethe/5a2c7d10"
START = datetime(2026, 11, 21, 10, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the log's key").digest())
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"another key").digest())
TRUSTED = VerifyingKey(
    KEY.public_key(), "log", START - timedelta(days=1), START + timedelta(days=1)
)
MODEL = UUID("6a3f0d8e-0000-4000-8000-00000000000a")
REQUEST = UUID("6a3f0d8e-0000-4000-8000-000000000001")
SALT = bytes(range(32))

Json = dict[str, Any]


def digest(name: str) -> bytes:
    """The keyed digest of a sample, as far as a verifier knows."""
    return naive.sha256(b"pseudonym of ", name.encode())


def weights(number: int, model: UUID = MODEL) -> bytes:
    return b"weights of version %d of " % number + model.bytes


def utc(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def quoted(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).isoformat()
