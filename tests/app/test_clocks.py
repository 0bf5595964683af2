"""Deadlines against a calendar written by hand, and against a walk from day to day."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.deletions.clocks import (
    Clock,
    PauseGround,
    Regulation,
    Term,
    confirm_by,
    days_left,
    due_at,
    extended_due_at,
    last_moment_to_extend,
    may_pause,
    shifted,
)
from tests.app.calendars import (
    ANY_MOMENT,
    ANY_ZONE,
    CHANGES,
    DAY,
    at,
    at_the_time_of_receipt,
    end_of,
    walked_days,
    walked_extension,
    walked_months,
    walked_term,
)

GDPR, CCPA, NONE = Regulation.GDPR, Regulation.CCPA, Regulation.NONE
POLICY = Clock(source="our own", term=Term(months=2, days=3))


@pytest.mark.parametrize(
    ("received", "due", "extended"),
    [
        ("2026-01-31T12:00", "2026-02-28T12:00", "2026-04-28T12:00"),
        ("2026-01-28T12:00", "2026-02-28T12:00", "2026-04-28T12:00"),
        ("2028-01-31T12:00", "2028-02-29T12:00", "2028-04-29T12:00"),
        ("2028-02-29T12:00", "2028-03-29T12:00", "2028-05-29T12:00"),
        ("2100-01-29T12:00", "2100-02-28T12:00", "2100-04-28T12:00"),
        ("2026-03-31T12:00", "2026-04-30T12:00", "2026-06-30T12:00"),
        ("2026-02-28T12:00", "2026-03-28T12:00", "2026-05-28T12:00"),
        ("2026-11-30T12:00", "2026-12-30T12:00", "2027-02-28T12:00"),
        ("2026-12-31T23:59:59.999999", "2027-01-31T23:59:59.999999", "2027-03-31T23:59:59.999999"),
        # Christmas, from which nothing moves on; nor did it from the Saturday in the first line.
        ("2026-11-25T12:00", "2026-12-25T12:00", "2027-02-25T12:00"),
    ],
)
def test_gdpr_leaves_one_calendar_month_and_two_more(
    received: str, due: str, extended: str
) -> None:
    assert due_at(GDPR, at(received)) == at(due)
    assert extended_due_at(GDPR, at(received)) == at(extended)


@pytest.mark.parametrize(
    ("received", "due", "extended"),
    [
        ("2026-01-01T00:00", "2026-02-15T00:00", "2026-04-01T00:00"),
        ("2027-12-15T08:00", "2028-01-29T08:00", "2028-03-14T08:00"),
        ("2026-12-15T08:00", "2027-01-29T08:00", "2027-03-15T08:00"),
    ],
)
def test_ccpa_leaves_45_days_and_45_more(received: str, due: str, extended: str) -> None:
    assert due_at(CCPA, at(received)) == at(due)
    assert extended_due_at(CCPA, at(received)) == at(extended)


@pytest.mark.parametrize(
    ("zone", "received", "due"),
    [
        # The same moment is the 28th of February in New York and the 1st of March in Berlin.
        ("America/New_York", "2026-03-01T02:00+00:00", "2026-03-29T01:00+00:00"),
        ("Europe/Berlin", "2026-03-01T02:00+00:00", "2026-04-01T01:00+00:00"),
        ("Pacific/Kiritimati", "2026-01-30T10:00+00:00", "2026-02-27T10:00+00:00"),
        ("Etc/GMT+12", "2026-02-01T11:59+00:00", "2026-03-01T11:59+00:00"),
        ("Etc/GMT+12", "2026-02-01T12:00+00:00", "2026-03-01T12:00+00:00"),
        # The hour that is left out, and the one that comes twice.
        ("Europe/Berlin", "2026-02-28T01:30+00:00", "2026-03-28T01:30+00:00"),
        ("Europe/Berlin", "2026-03-01T01:30+00:00", "2026-04-01T00:30+00:00"),
        ("Europe/Berlin", "2028-02-26T01:30+00:00", "2028-03-26T00:30+00:00"),
        ("Europe/Berlin", "2026-09-25T00:30+00:00", "2026-10-25T00:30+00:00"),
        ("Australia/Lord_Howe", "2026-09-03T15:45+00:00", "2026-10-03T15:15+00:00"),
        # Samoa had no 30th of December.
        ("Pacific/Apia", "2011-11-30T22:00+00:00", "2011-12-29T22:00+00:00"),
    ],
)
def test_a_month_is_one_of_the_zone(zone: str, received: str, due: str) -> None:
    moment = datetime.fromisoformat(received)
    assert due_at(GDPR, moment, ZoneInfo(zone)) == datetime.fromisoformat(due)


@given(regulation=st.sampled_from([GDPR, CCPA]), received_at=ANY_MOMENT, zone=ANY_ZONE)
@settings(deadline=None)
def test_a_deadline_is_the_time_of_receipt_on_the_last_day_of_a_walk(
    regulation: Regulation, received_at: datetime, zone: ZoneInfo
) -> None:
    day = received_at.astimezone(zone).date()
    first, last = walked_term(regulation, day), walked_extension(regulation, day)
    due, extended = (
        due_at(regulation, received_at, zone),
        extended_due_at(regulation, received_at, zone),
    )
    assert due == at_the_time_of_receipt(first, received_at, zone)
    assert extended == at_the_time_of_receipt(last, received_at, zone)
    assert last_moment_to_extend(regulation, received_at, zone) == due
    assert (due.tzinfo, extended.tzinfo) == (UTC, UTC)


@given(
    change=st.sampled_from(CHANGES),
    minute=st.one_of(st.integers(0, 4 * 60), st.integers(0, 24 * 60 - 1)),
)
@settings(deadline=None, max_examples=400)
def test_a_deadline_on_a_day_when_clocks_change_is_the_earlier_reading(
    change: tuple[ZoneInfo, date], minute: int
) -> None:
    zone, last = change
    wall = datetime.combine(last - 45 * DAY, time(minute // 60, minute % 60), zone)
    received_at = wall.astimezone(UTC)
    due = due_at(CCPA, received_at, zone)
    assert due == at_the_time_of_receipt(
        walked_days(received_at.astimezone(zone).date(), 45), received_at, zone
    )
    assert due < end_of(last, zone)


@given(received_at=ANY_MOMENT, zone=ANY_ZONE)
@settings(deadline=None)
def test_no_deadline_is_later_than_the_end_of_the_last_day_of_the_law(
    received_at: datetime, zone: ZoneInfo
) -> None:
    day = received_at.astimezone(zone).date()
    assert received_at < due_at(GDPR, received_at, zone) < end_of(walked_months(day, 1), zone)
    assert extended_due_at(GDPR, received_at, zone) < end_of(walked_months(day, 3), zone)
    assert received_at < due_at(CCPA, received_at, zone) < end_of(walked_days(day, 45), zone)
    assert extended_due_at(CCPA, received_at, zone) < end_of(walked_days(day, 90), zone)


@given(received_at=ANY_MOMENT, zone=ANY_ZONE)
@settings(deadline=None)
def test_the_zone_in_which_a_moment_is_written_changes_no_deadline(
    received_at: datetime, zone: ZoneInfo
) -> None:
    written = received_at.astimezone(zone)
    for regulation in (GDPR, CCPA):
        assert due_at(regulation, written) == due_at(regulation, received_at)
        assert confirm_by(regulation, written) == confirm_by(regulation, received_at)
        assert extended_due_at(regulation, written) == extended_due_at(regulation, received_at)


def test_a_policy_of_ones_own_has_a_clock_like_a_law() -> None:
    received = at("2026-12-31T09:00")
    assert due_at(POLICY, received) == at("2027-03-03T09:00")
    for not_granted in (extended_due_at, last_moment_to_extend, confirm_by):
        assert not_granted(POLICY, received) is None
    strict = Clock(source="ours", term=Term(days=7), extension=Term(days=7), confirm_days=1)
    assert last_moment_to_extend(strict, received) == at("2027-01-07T09:00")
    assert extended_due_at(strict, received) == at("2027-01-14T09:00")
    assert confirm_by(strict, received) == at("2027-01-04T09:00")


@pytest.mark.parametrize("parts", [{}, {"days": -1}, {"months": 2, "days": -1}, {"months": -1}])
def test_a_term_that_ends_before_it_begins_is_refused(parts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="term"):
        Term(**parts)


@pytest.mark.parametrize("days", [0, -1])
def test_a_confirmation_before_the_first_business_day_is_refused(days: int) -> None:
    with pytest.raises(ValueError, match="business day"):
        Clock(source="ours", term=Term(days=7), confirm_days=days)


def test_without_a_law_no_clock_runs() -> None:
    received = at("2026-01-01T00:00")
    for asked in (due_at, extended_due_at, last_moment_to_extend, confirm_by):
        assert asked(NONE, received) is None
    assert not any(may_pause(NONE, ground) for ground in PauseGround)


@pytest.mark.parametrize(
    "asked",
    [
        lambda moment: due_at(GDPR, moment),
        lambda moment: due_at(NONE, moment),
        lambda moment: extended_due_at(GDPR, moment),
        lambda moment: last_moment_to_extend(GDPR, moment),
        lambda moment: confirm_by(CCPA, moment),
        lambda moment: shifted(moment, DAY),
        lambda moment: days_left(moment, at("2026-01-01")),
        lambda moment: days_left(at("2026-01-01"), moment),
    ],
)
def test_a_time_without_a_zone_is_refused(asked: Callable[[datetime], object]) -> None:
    asked(at("2026-01-01"))
    with pytest.raises(ValueError, match="time zone"):
        asked(datetime.fromisoformat("2026-01-01"))
