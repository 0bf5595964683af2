"""The operator's key: shown once, to whoever starts the service; the state folder has its SHA-256.

A digest that anybody may compute fast keeps it only because it is 256 random bits.
"""

import hashlib
import os
import re
import secrets

from embedded.commands import API_KEY, API_KEY_DIGEST
from embedded.errors import SettingsRefused

SECRET_BYTES = 32
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def make() -> str:
    """Make a key, to be shown once."""
    return f"lethe_{secrets.token_urlsafe(SECRET_BYTES)}"


def digest_of(key: str) -> str:
    """What is kept of a key, spelled as LETHE_API_KEY_DIGEST is."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def variable_in_use() -> str:
    """The variable by which the user gave a key; empty when there is none.

    Raises:
        SettingsRefused: both are set.

    """
    given = [name for name in (API_KEY, API_KEY_DIGEST) if os.environ.get(name)]
    if len(given) > 1:
        raise SettingsRefused(
            f"{API_KEY} and {API_KEY_DIGEST} are both set. Take out the first, or the second if "
            "you mean another key."
        )
    return given[0] if given else ""
