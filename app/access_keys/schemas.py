"""What access keys look like on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from app.scopes import OPERATOR, Scope
from app.tables import AccessKey
from app.wire import Answer, Body, Name

LONGEST_LIFE_DAYS = 3_660
_KEY = "lethe_" + "6f1f0f3e3f0c4e0e9f5b1d3c8f6c2a11" + "_" + "5e" * 32


def not_reserved(name: str) -> str:
    """Return a name that a client may have.

    Raises:
        ValueError: it is the operator's.

    """
    if name == OPERATOR:
        raise ValueError("is the name of whoever has the operator's key; choose another one")
    return name


ClientName = Annotated[Name, AfterValidator(not_reserved)]


class NewAccessKey(Body):
    """A key for a client; with the name of one that has a key already, a second one for it."""

    name: ClientName = Field(
        description="The client: requests belong to it, and the audit log keeps it for good. Name "
        "an application or a role, not a person.",
        examples=["shop-eu"],
    )
    scopes: list[Scope] = Field(
        description="What the key opens; only what the caller's own key opens, too.",
        min_length=1,
        max_length=len(Scope),
        examples=[[Scope.SUBMIT, Scope.READ]],
    )
    valid_days: int | None = Field(
        None,
        ge=1,
        le=LONGEST_LIFE_DAYS,
        description="After how many days it expires; never, if not given.",
        examples=[365],
    )


class AccessKeyAnswer(Answer):
    """A key, without its secret."""

    id: UUID
    name: str = Field(examples=["shop-eu"])
    scopes: list[str] = Field(examples=[[Scope.SUBMIT, Scope.READ]])
    created_at: datetime
    created_by: str = Field(examples=[OPERATOR])
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute; null if it never was.")


class CreatedAccessKey(AccessKeyAnswer):
    """A key on the day that it was made."""

    key: str = Field(description="The key itself. Shown this once.", examples=[_KEY])


class AccessKeyPage(Answer):
    """Some keys, newest first."""

    items: list[AccessKeyAnswer]
    next_cursor: str | None


def describe(row: AccessKey) -> AccessKeyAnswer:
    """Return a key as its readers see it."""
    return AccessKeyAnswer(
        id=row.id,
        name=row.name,
        scopes=row.scopes,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def describe_created(row: AccessKey, text: str) -> CreatedAccessKey:
    """Return a new key, with its text."""
    return CreatedAccessKey(**describe(row).model_dump(), key=text)
