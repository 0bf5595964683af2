"""What the description of a type says is what its validation takes."""

import re
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from app.wire import UtcMoment

MOMENT: TypeAdapter[datetime] = TypeAdapter(UtcMoment)
PATTERN = MOMENT.json_schema()["pattern"]


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("0001-01-02T00:00:00+23:59", 1),
        ("9999-12-30T23:59:59.999999-23:59", 9999),
        ("2026-11-20T10:00:00+03:00", 2026),
    ],
)
def test_a_moment_that_the_description_allows_is_taken_in_utc(text: str, year: int) -> None:
    assert re.search(PATTERN, text)
    moment = MOMENT.validate_python(text)
    assert moment == datetime.fromisoformat(text)
    assert (moment.tzinfo, moment.year) == (UTC, year)


@pytest.mark.parametrize(
    "text",
    [
        *("0001-01-01T00:00:00+03:00", "0001-01-01T12:00:00Z"),
        *("9999-12-31T23:59:59-03:00", "9999-12-31T00:00:00Z"),
    ],
)
def test_a_moment_at_an_end_of_the_calendar_is_refused_as_described(text: str) -> None:
    assert not re.search(PATTERN, text)
    with pytest.raises(ValidationError):
        MOMENT.validate_python(text)
