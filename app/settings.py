"""Every setting, in one frozen place; the only reader of the environment."""

import hashlib
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    IPvAnyNetwork,
    SecretBytes,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.custom_clock import OptionalClock
from app.issuer_url import may_be_asked

MEBIBYTE = 1024**2
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


def _sha256(secret: SecretStr) -> SecretBytes:
    return SecretBytes(hashlib.sha256(secret.get_secret_value().encode()).digest())


def _digest_of_key(key: object) -> SecretBytes | None:
    # The digest is all that a caller's key is compared with, so the key itself is not kept.
    if key is None or key == "":
        return None
    return _sha256(_strong(SecretStr(key if isinstance(key, str) else "")))


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


def _long_enough(kept: timedelta) -> timedelta:
    if not SHORTEST_LOG <= kept <= LONGEST_LOG:
        raise ValueError(
            f"must be from {SHORTEST_LOG.days} days (P7D) on, since a message is retried for days, "
            "its log tells whether an endpoint still takes any, and its client has to find what "
            f"was given up in order to replay it; and {LONGEST_LOG.days} days at most"
        )
    return kept


class Settings(BaseSettings):
    """Read from variables named LETHE_…; durations as ISO 8601 or seconds, sizes as 8MiB."""

    model_config = SettingsConfigDict(
        env_prefix="LETHE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    mode: Literal["production", "embedded"] = "production"

    # Where things are
    database_url: Annotated[SecretStr, AfterValidator(_sqlalchemy_url)]
    broker_url: Annotated[SecretStr, AfterValidator(_redis_url)]
    artifacts_folder: Path = Path("artifacts")

    # Secrets; each process gets only those that it needs
    # The operator's bearer key, with every scope; in either form its SHA-256 is all that is kept.
    api_key: Annotated[SecretBytes | None, BeforeValidator(_digest_of_key)] = Field(
        None, description="Given as the key; for the API alone."
    )
    api_key_digest: Annotated[SecretBytes | None, BeforeValidator(_read_digest)] = Field(
        None, description="Given as `sha256:` and its digits; for the API alone."
    )
    id_key: Secret | None = Field(None, description="HMAC key of sample IDs; API and workers.")
    # Private keys, as PEM, as one line of base64 (PKCS #8 in DER), or in a file; see app/keys.py.
    log_key: PrivateKey = Field(None, description="Ed25519; API and scheduler.")
    log_key_file: OptionalPath = None
    weights_key: PrivateKey = Field(None, description="ECDSA P-256; workers.")
    weights_key_file: OptionalPath = None
    opendsr_key: PrivateKey = Field(None, description="ECDSA P-256; API and scheduler.")
    opendsr_key_file: OptionalPath = None

    # Under which name controllers reach this service by OpenDSR, and who vouches for its key
    opendsr_domain: OptionalDomain = None
    opendsr_certificate_file: OptionalPath = None

    # Who issues bearer tokens, if anybody does, and what their claims are called
    oidc_issuer: OptionalText = None
    oidc_audience: OptionalText = None
    oidc_jwks_url: OptionalText = None
    oidc_scope_claim: Annotated[str, Field(min_length=1)] = "scope"
    oidc_client_claim: OptionalText = None

    # How often a client may call, and an address may fail to say who it is
    rate_limit: Rate = None
    failed_login_limit: Rate = None

    # Signed tree heads, and who is shown them
    head_interval: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(minutes=1)
    witness_file: OptionalPath = None
    witness_urls: Urls = ()

    # Those who run a version, and where they may be told of its withdrawal
    recall_overdue: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=72)
    webhook_private_networks: Networks | None = Field(
        None, description="Networks, besides public ones, to which messages are sent."
    )

    # How long the log has a message that was taken or given up; those of notices stay
    delivery_log_kept: Annotated[Duration, AfterValidator(_long_enough)] = timedelta(days=90)

    # Limits of the API
    json_body_limit: ByteSize = Field(
        # 10,000 IDs of 256 bytes take 2.5 MiB, and thrice that when an encoder escapes them.
        ByteSize(8 * MEBIBYTE)
    )
    checkpoint_limit: ByteSize = ByteSize(16 * 1024 * MEBIBYTE)
    # A bulk intake in which nothing moves for so long ends; its client can go on with another.
    bulk_patience: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(minutes=1)

    # Where the days of a legal deadline begin and end
    time_zone: TimeZone = ZoneInfo("UTC")
    custom_clock: OptionalClock = Field(
        None, description="JSON: the clock of requests whose regulation is `custom`."
    )

    # Whether requests wait for an approval
    review: Literal["automatic", "manual"] = "automatic"

    # The planner and the jobs
    plan_interval: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=5)
    # A lease is renewed four times in its life: three renewals may fail before it is lost.
    lease: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=60)
    job_attempts: Annotated[int, Field(ge=1)] = 5
    # Before the second attempt; doubled for each further one, up to the limit.
    retry_delay: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=10)
    retry_delay_limit: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(minutes=10)
    job_time_limit: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=24)

    # The worker's machine
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    torch_threads: Annotated[int, Field(ge=1)] | None = None

    # See app/crash_points.py; for tests of what a crash leaves behind.
    crash_folder: Path | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _crash_on_purpose_only_in_tests(self) -> Self:
        if self.crash_folder is not None and self.mode != "embedded":
            raise ValueError("LETHE_CRASH_FOLDER is for tests, in LETHE_MODE=embedded alone")
        return self

    @model_validator(mode="after")
    def _issuer_is_whole(self) -> Self:
        if self.oidc_issuer is None:
            if self.oidc_audience is not None or self.oidc_jwks_url is not None:
                raise ValueError("LETHE_OIDC_ISSUER says whose tokens are believed; set it, too")
            return self
        if self.oidc_audience is None:
            raise ValueError("LETHE_OIDC_AUDIENCE must say which tokens are meant for this service")
        for url in filter(None, (self.oidc_issuer, self.oidc_jwks_url)):
            if not may_be_asked(url, plain_http=self.mode == "embedded"):
                raise ValueError("LETHE_OIDC_ISSUER and LETHE_OIDC_JWKS_URL must be https:// URLs")
        return self

    @model_validator(mode="after")
    def _operator_has_one_key(self) -> Self:
        if self.api_key is not None and self.api_key_digest is not None:
            raise ValueError(
                "LETHE_API_KEY and LETHE_API_KEY_DIGEST are both set; take out the first, or the "
                "second if you mean another key"
            )
        return self

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        root = self.root_key_digest()
        if self.id_key is not None and root == _sha256(self.id_key).get_secret_value():
            raise ValueError(
                "LETHE_ID_KEY and the operator's key must differ: clients know the second"
            )
        return self

    def required_id_key(self) -> bytes:
        """Return the key of the sample digests.

        Raises:
            RuntimeError: LETHE_ID_KEY is not set in this process.

        """
        if self.id_key is None:
            raise RuntimeError("LETHE_ID_KEY is not set; this process digests sample IDs")
        return self.id_key.get_secret_value().encode()

    def root_key_digest(self) -> bytes | None:
        """Return the SHA-256 of the operator's bearer key (32 bytes), if there is one."""
        found = self.api_key_digest if self.api_key is None else self.api_key
        return None if found is None else found.get_secret_value()


@cache
def settings() -> Settings:
    """Return this process's settings, read once."""
    return Settings()
