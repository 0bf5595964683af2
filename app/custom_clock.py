"""How the clock of a policy of one's own is written in the settings."""

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode


class Span(BaseModel):
    """Calendar months and days."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    months: Annotated[int, Field(ge=0, le=120)] = 0
    days: Annotated[int, Field(ge=0, le=3_660)] = 0

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:
        if not (self.months or self.days):
            raise ValueError("has months or days")
        return self


class CustomClock(BaseModel):
    """What is granted for an answer, as `app.deletions.clocks.Clock` has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    term: Span
    extension: Span | None = None
    confirm_days: Annotated[int, Field(ge=1, le=260)] | None = None
    pauses: tuple[Literal["identity", "clarification"], ...] = ()


def _read(value: object) -> object:
    if not isinstance(value, str):
        return value
    # Compose hands on what is not set as an empty text.
    return json.loads(value) if value.strip() else None


# NoDecode, because an empty text is no JSON.
OptionalClock = Annotated[CustomClock | None, NoDecode, BeforeValidator(_read)]
