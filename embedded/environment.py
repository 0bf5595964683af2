"""What each program gets to see of the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from embedded.commands import (
    API_KEY,
    API_KEY_DIGEST,
    ID_KEY,
    LOG_KEY,
    LOG_KEY_FILE,
    OPENDSR_CERTIFICATE_FILE,
    OPENDSR_KEY,
    OPENDSR_KEY_FILE,
    WEIGHTS_KEY,
    WEIGHTS_KEY_FILE,
    Program,
)
from embedded.signing_keys import (
    CERTIFICATE_NAME,
    LOG_KEY_NAME,
    OPENDSR_KEY_NAME,
    WEIGHTS_KEY_NAME,
)
from embedded.state import Secrets


def secrets_of(folder: Path, own: Secrets) -> dict[str, str]:
    """What the programs may be given: what the user set, or else the folder's own.

    A name without a value is one that no program gets.
    """
    chosen = {
        API_KEY: os.environ.get(API_KEY, ""),
        API_KEY_DIGEST: os.environ.get(API_KEY_DIGEST, ""),
        ID_KEY: os.environ.get(ID_KEY) or own.id_key,
    }
    if not chosen[API_KEY] and not chosen[API_KEY_DIGEST]:
        chosen[API_KEY_DIGEST] = own.api_key_digest
    for key, file, name in (
        (LOG_KEY, LOG_KEY_FILE, LOG_KEY_NAME),
        (WEIGHTS_KEY, WEIGHTS_KEY_FILE, WEIGHTS_KEY_NAME),
        (OPENDSR_KEY, OPENDSR_KEY_FILE, OPENDSR_KEY_NAME),
    ):
        chosen[key] = os.environ.get(key, "")
        chosen[file] = _path(file)
        if not chosen[key] and not chosen[file]:
            chosen[file] = str(folder / name)
    own_certificate = _path(OPENDSR_CERTIFICATE_FILE)
    chosen[OPENDSR_CERTIFICATE_FILE] = own_certificate or str(folder / CERTIFICATE_NAME)
    return chosen


def _path(name: str) -> str:
    # The programs run in another folder than the user's.
    return os.path.abspath(os.environ[name]) if os.environ.get(name) else ""


def environment_for(
    program: Program, service: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """What a program gets to see: everything of ours except the secrets that it has no use for."""
    inherited = {name: value for name, value in os.environ.items() if name not in secrets}
    granted = {name: secrets[name] for name in program.secrets if secrets[name]}
    # What the user set wins over the defaults; the URLs are in `service` only when it did not.
    return {**program.environment, **service, **inherited, **granted}
