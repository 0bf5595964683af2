"""Types that requests and answers of several routes share."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Annotated, Any

from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from app import pages
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

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


def _written_out(given: object) -> object:
    # Else a number would be taken for the seconds since 1970.
    if not (isinstance(given, str) and _DATE_TIME.fullmatch(given)):
        raise ValueError("must be a date and time with a zone, as in RFC 3339")
    return given


def _in_utc(moment: datetime) -> datetime:
    # In another zone than UTC, some hours of these days lie outside the calendar.
    if moment.date() in (date.min, date.max):
        raise ValueError("must not be the calendar's first day or its last")
    return moment.astimezone(UTC)


Text = Annotated[
    str,
    AfterValidator(_storable),
    # Tells readers of the description what the validator refuses.
    Field(json_schema_extra={"pattern": r"^[^\u0000]*$"}),
]
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
# One that is stored, or computed with.
UtcMoment = Annotated[
    Moment,
    AfterValidator(_in_utc),
    Field(json_schema_extra={"pattern": "^(?!0001-01-01|9999-12-31)"}),
]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST_PATTERN.pattern}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=200,
        description="`next_cursor` of the page before; leave out for the first.",
        # Told, and not checked here: what was made up is an invalid cursor, not an invalid request.
        json_schema_extra={"pattern": pages.PATTERN},
    ),
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
