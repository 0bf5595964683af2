"""Types that requests and answers of several routes share."""

from collections.abc import Mapping
from datetime import timedelta
from math import ceil
from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.artifacts import DIGEST_PATTERN
from app.errors import (
    ContentTooLarge,
    Forbidden,
    Invalid,
    LetheError,
    Malformed,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from app.settings import settings
from app.tables import ModelVersion


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST_PATTERN.pattern}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
Cursor = Annotated[
    str | None,
    Query(max_length=200, description="`next_cursor` of the page before; leave out for the first."),
]
Limit = Annotated[int, Query(ge=1, le=200, description="Rows in a page.")]

# What any route may answer; each route adds its own.
COMMON: tuple[type[LetheError], ...] = (
    Unauthorized,
    Forbidden,
    Invalid,
    TooManyRequests,
    Unavailable,
)
WITH_BODY: tuple[type[LetheError], ...] = (*COMMON, Malformed, ContentTooLarge)


class Body(BaseModel):
    """A request body: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)


class VersionName(Answer):
    """Enough to find a model version."""

    number: int = Field(examples=[2])
    digest: str = Field(examples=["sha256:" + "5e" * 32])
    guarantee: str | None = Field(examples=["approximate"])
    verdict: str | None = Field(
        description="`passed`, or `inconclusive` where the policy publishes that; null for the "
        "weights that were registered.",
        examples=["passed"],
    )


def version_name(version: ModelVersion | None) -> VersionName | None:
    """Return what finds a version, if there is one."""
    if version is None:
        return None
    return VersionName(
        number=version.number,
        digest=version.digest,
        guarantee=version.guarantee,
        verdict=version.verdict,
    )


def retry_after(wait: timedelta | None = None) -> Mapping[str, str]:
    """Return the header that says when to ask again, in whole seconds."""
    chosen = settings().plan_interval if wait is None else wait
    return {"Retry-After": str(max(1, ceil(chosen.total_seconds())))}


def accepted(location: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a 202 answer's headers."""
    return {
        202: {
            "description": "Accepted and stored; the work follows.",
            "headers": {
                "Location": {"schema": {"type": "string"}, "example": location},
                "Retry-After": {"schema": {"type": "integer"}, "example": 5},
            },
        }
    }
