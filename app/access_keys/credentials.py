"""The text of a key, `lethe_{id}_{secret}`: made here, read here, and stored nowhere.

Of the secret a plain SHA-256 is kept. Slow hashes make up for secrets that people choose; this one
is 256 random bits, which nobody guesses at any speed, and a slow hash would cost each call.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from uuid import UUID, uuid4

# One form, in digits that a double click marks, so that scanners for leaked secrets can find it.
PATTERN = re.compile(r"lethe_([0-9a-f]{32})_([0-9a-f]{64})")
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credential:
    """A key's id, and the SHA-256 of its secret (32 bytes)."""

    id: UUID
    digest: bytes = field(repr=False)


def make() -> tuple[str, Credential]:
    """Return the text of a new key, to be shown once, and what is to be kept of it."""
    id_, secret = uuid4(), secrets.token_hex(SECRET_BYTES)
    return f"lethe_{id_.hex}_{secret}", Credential(id_, _digest(secret))


def read(text: str) -> Credential | None:
    """Return what a text says it is, or None if it is no key's."""
    found = PATTERN.fullmatch(text)
    return None if found is None else Credential(UUID(found[1]), _digest(found[2]))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
