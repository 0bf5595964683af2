"""Every setting, in one frozen place; the only reader of the environment."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import ByteSize, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.custom_clock import OptionalClock
from app.issuer_url import may_be_asked
from app.setting_types import (
    BrokerUrl,
    DatabaseUrl,
    Duration,
    Networks,
    OperatorKey,
    OperatorKeyDigest,
    OptionalDomain,
    OptionalPath,
    OptionalText,
    PrivateKey,
    Rate,
    Secret,
    TimeInLog,
    TimeZone,
    Urls,
    sha256,
)

MEBIBYTE = 1024**2


class Settings(BaseSettings):
    """Read from variables named LETHE_…; durations as ISO 8601 or seconds, sizes as 8MiB."""

    model_config = SettingsConfigDict(
        env_prefix="LETHE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    mode: Literal["production", "embedded"] = "production"

    # Where things are
    database_url: DatabaseUrl
    broker_url: BrokerUrl
    artifacts_folder: Path = Path("artifacts")

    # Secrets; each process gets only those that it needs
    # The operator's bearer key, with every scope; in either form its SHA-256 is all that is kept.
    api_key: OperatorKey = Field(None, description="Given as the key; for the API alone.")
    api_key_digest: OperatorKeyDigest = Field(
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
    delivery_log_kept: TimeInLog = timedelta(days=90)

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
        if self.id_key is not None and root == sha256(self.id_key).get_secret_value():
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
