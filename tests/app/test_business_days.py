"""Business days against the published list of holidays, and against another library's calendar."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import given
from hypothesis import strategies as st

from app.deletions.business_days import business_day_after, is_business_day, is_federal_holiday
from app.deletions.clocks import Regulation, confirm_by
from tests.app.calendars import DAY, at

GDPR, CCPA = Regulation.GDPR, Regulation.CCPA

# As the Office of Personnel Management lists them, by the day of observance.
OBSERVED = {
    2024: "01-01 01-15 02-19 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
    2025: "01-01 01-20 02-17 05-26 06-19 07-04 09-01 10-13 11-11 11-27 12-25",
    2026: "01-01 01-19 02-16 05-25 06-19 07-03 09-07 10-12 11-11 11-26 12-25",
    2027: "01-01 01-18 02-15 05-31 06-18 07-05 09-06 10-11 11-11 11-25 12-24 12-31",
    2028: "01-17 02-21 05-29 06-19 07-04 09-04 10-09 11-10 11-23 12-25",
    2029: "01-01 01-15 02-19 05-28 06-19 07-04 09-03 10-08 11-12 11-22 12-25",
    2030: "01-01 01-21 02-18 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
}


@pytest.mark.parametrize("year", OBSERVED)
def test_federal_holidays_are_those_of_the_list(year: int) -> None:
    days = [date(year, 1, 1) + n * DAY for n in range(366)]
    found = [f"{day:%m-%d}" for day in days if day.year == year and is_federal_holiday(day)]
    assert found == OBSERVED[year].split()


def by_recurrence(first: int, last: int) -> set[date]:
    """All observed holidays of some years, by the calendar rules of another library."""
    span = {"dtstart": datetime(first, 1, 1), "until": datetime(last, 12, 31)}  # noqa: DTZ001
    nth = [(1, rrule.MO(3)), (2, rrule.MO(3)), (5, rrule.MO(-1)), (9, rrule.MO(1))]
    nth += [(10, rrule.MO(2)), (11, rrule.TH(4))]
    moving = [rrule.rrule(rrule.YEARLY, bymonth=m, byweekday=d, **span) for m, d in nth]
    dated = [(1, 1), (6, 19), (7, 4), (11, 11), (12, 25)]
    fixed = [rrule.rrule(rrule.YEARLY, bymonth=m, bymonthday=d, **span) for m, d in dated]
    moved = {rrule.SA.weekday: -DAY, rrule.SU.weekday: DAY}
    return {day.date() for rule in moving for day in rule} | {
        day.date() + moved.get(day.weekday(), 0 * DAY) for rule in fixed for day in rule
    }


HOLIDAYS = by_recurrence(2021, 2121)


@given(st.dates(date(2021, 6, 1), date(2120, 12, 1)), st.integers(1, 40))
def test_so_many_business_days_are_counted_as_a_calendar_counts_them(day: date, n: int) -> None:
    left, last = n, day
    while left:
        last += DAY
        working = last.isoweekday() <= 5 and last not in HOLIDAYS
        assert is_business_day(last) == working
        left -= working
    assert business_day_after(day, n) == last


@pytest.mark.parametrize(
    ("received", "until"),
    [
        ("2026-03-02", "2026-03-16"),
        ("2026-11-20", "2026-12-07"),  # Thanksgiving
        ("2026-12-19", "2027-01-05"),  # from a Saturday, over two holidays
        ("2026-06-24", "2026-07-09"),  # Independence Day, observed on a Friday
        ("2027-12-17", "2028-01-04"),  # New Year, observed in the old one
    ],
)
def test_ccpa_asks_for_a_confirmation_within_ten_business_days(received: str, until: str) -> None:
    assert confirm_by(CCPA, at(received + "T17:00")) == at(until + "T17:00")
    assert confirm_by(GDPR, at(received + "T17:00")) is None


def test_business_days_are_those_of_the_zone() -> None:
    received = at("2026-03-03T02:00")
    assert confirm_by(CCPA, received) == at("2026-03-17T02:00")
    assert confirm_by(CCPA, received, ZoneInfo("America/Los_Angeles")) == at("2026-03-17T01:00")
    # Still Friday there, although it is Saturday in UTC.
    received = at("2026-03-07T03:00")
    assert confirm_by(CCPA, received) == at("2026-03-20T03:00")
    assert confirm_by(CCPA, received, ZoneInfo("America/Los_Angeles")) == at("2026-03-21T02:00")


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_business_day_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="business day"):
        business_day_after(date(2026, 1, 1), count)
