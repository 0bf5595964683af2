"""How single settings are read from text, and which values are refused with which words."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretBytes,
    SecretStr,
)
from pydantic_settings import NoDecode

# Shorter secrets can be guessed; 32 characters is what `openssl rand -hex 16` prints.
SHORTEST_SECRET = 32
# Values that stand in examples, which somebody will deploy.
EXAMPLE_SECRETS = ("change-me", "changeme", "example", "secret", "password")
# One form, as digests are spelled everywhere here.
KEY_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# What comes out when the variable with the key is misspelled.
DIGEST_OF_NOTHING = hashlib.sha256().digest()
# Retries take up to five and a half days, where a receiver asks for the longest pauses.
SHORTEST_LOG = timedelta(days=7)
# A century; much longer ones lead to before the calendar of PostgreSQL begins.
LONGEST_LOG = timedelta(days=36_525)


def _strong(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if len(value) < SHORTEST_SECRET:
        raise ValueError(f"needs at least {SHORTEST_SECRET} characters; try: openssl rand -hex 32")
    if any(word in value.lower() for word in EXAMPLE_SECRETS):
        raise ValueError("is an example's value; make one of your own: openssl rand -hex 32")
    return secret


def sha256(secret: SecretStr) -> SecretBytes:
    """Return the SHA-256 of a secret, 32 bytes."""
    return SecretBytes(hashlib.sha256(secret.get_secret_value().encode()).digest())


def _digest_of_key(key: object) -> SecretBytes | None:
    # The digest is all that a caller's key is compared with, so the key itself is not kept.
    if key is None or key == "":
        return None
    return sha256(_strong(SecretStr(key if isinstance(key, str) else "")))


def _read_digest(text: object) -> SecretBytes | None:
    if text is None or text == "":
        return None
    found = KEY_DIGEST.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            "must be `sha256:` and the 64 hexadecimal digits, in lower case, that "
            '`printf %s "$KEY" | openssl dgst -sha256 -r` prints first, and not the key itself'
        )
    digest = bytes.fromhex(found[1])
    if digest == DIGEST_OF_NOTHING:
        raise ValueError("is the digest of an empty text, and not of a key")
    return SecretBytes(digest)


def _sqlalchemy_url(url: SecretStr) -> SecretStr:
    value = url.get_secret_value()
    for prefix in ("postgresql://", "postgres://"):
        if value.startswith(prefix):
            return SecretStr("postgresql+psycopg://" + value.removeprefix(prefix))
    if not value.startswith("postgresql+psycopg://"):
        raise ValueError("must be a postgresql:// URL; Lethe speaks one dialect")
    return url


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://")):
        raise ValueError("must be a redis:// or rediss:// URL; Lethe speaks one broker protocol")
    return url


def _seconds(value: object) -> object:
    if isinstance(value, str) and value.replace(".", "", 1).isdigit():
        return float(value)
    return value


def _listed(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    # Compose hands on what is not set as an empty text.
    return None if value == "" else value


def _none_if_off(value: object) -> object:
    return None if value in ("", "0", 0) else value


def _http_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its words would quote the port
        sound = False
    if not sound:
        raise ValueError("must be http:// or https:// URLs, with spaces between them")
    return url


def _known_zone(zone: ZoneInfo) -> ZoneInfo:
    # Also installed beside IANA's: whatever this machine is set to, and zones with leap seconds.
    if zone.key == "localtime" or zone.key not in available_timezones():
        raise ValueError("must be the name of an IANA time zone, such as Europe/Berlin")
    return zone


def _long_enough(kept: timedelta) -> timedelta:
    if not SHORTEST_LOG <= kept <= LONGEST_LOG:
        raise ValueError(
            f"must be from {SHORTEST_LOG.days} days (P7D) on, since a message is retried for days, "
            "its log tells whether an endpoint still takes any, and its client has to find what "
            f"was given up in order to replay it; and {LONGEST_LOG.days} days at most"
        )
    return kept


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
PrivateKey = Annotated[SecretStr | None, BeforeValidator(_none_if_empty)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]
Rate = Annotated[
    Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8} ?/ ?(second|minute|hour|day)$")] | None,
    BeforeValidator(_none_if_off),
]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
# A name as certificates have it, and a port if it is not the usual one.
OptionalDomain = Annotated[
    Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$")] | None,
    BeforeValidator(_none_if_empty),
]
# Separated by spaces or commas; NoDecode, because pydantic would read the variable as JSON.
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_listed)]
# Secrets, since a path or a query may hold a token.
Urls = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_http_url)], ...], NoDecode, BeforeValidator(_listed)
]
TimeZone = Annotated[ZoneInfo, AfterValidator(_known_zone)]
Secret = Annotated[SecretStr, AfterValidator(_strong)]
OperatorKey = Annotated[SecretBytes | None, BeforeValidator(_digest_of_key)]
OperatorKeyDigest = Annotated[SecretBytes | None, BeforeValidator(_read_digest)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_sqlalchemy_url)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
TimeInLog = Annotated[Duration, AfterValidator(_long_enough)]
