"""The compose file as Docker Compose reads it, with made-up secrets."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.keys import Purpose, create
from embedded.commands import (
    API,
    API_KEY_DIGEST,
    ID_KEY,
    LOG_KEY,
    MIGRATIONS,
    SCHEDULER,
    WEIGHTS_KEY,
    WORKER,
)

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROGRAMS = {"api": API, "worker": WORKER, "scheduler": SCHEDULER, "migrate": MIGRATIONS}


def one_line(purpose: Purpose) -> str:
    """A private key as the documentation has it made with openssl."""
    der = create(purpose).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return base64.b64encode(der).decode()


SECRETS = {
    **{
        name: character * 64
        for name, character in zip(
            ("POSTGRES_PASSWORD", "BROKER_PASSWORD", ID_KEY), "abc", strict=True
        )
    },
    API_KEY_DIGEST: "sha256:" + "d" * 64,
    LOG_KEY: one_line(Purpose.LOG),
    WEIGHTS_KEY: one_line(Purpose.WEIGHTS),
}


def compose(
    *arguments: str, environment: Mapping[str, str] = SECRETS
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(BIN / "docker-compose", "--file", ROOT / "docker-compose.yml"),
            *("--env-file", os.devnull),  # not the developer's own .env
            *("config", *arguments),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def stop_grace_seconds(service: Mapping[str, str]) -> int:
    minutes, seconds = re.fullmatch(
        r"(?:(\d+)m)?(?:(\d+)s)?", service["stop_grace_period"]
    ).groups()
    return 60 * int(minutes or 0) + int(seconds or 0)
