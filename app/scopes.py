"""Who calls and what they may do, in words that services share with the API."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# The client of the operator's key, and who made a key without the API; no key is named so.
OPERATOR = "operator"


class Scope(StrEnum):
    """What a client may be allowed to do."""

    SUBMIT = "erasure:submit"
    READ = "erasure:read"
    DECIDE = "erasure:decide"
    MODELS = "models:write"
    AUDIT = "audit:read"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller. Requests belong to its name, which several keys may share."""

    name: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a credential proves, and until when; None for one without an end."""

    client: Client
    expires_at: datetime | None
