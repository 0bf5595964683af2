"""What stands still, for whom, and how many days are left then."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.deletions.clocks import (
    CLOCKS,
    Clock,
    PauseGround,
    Regulation,
    Term,
    days_left,
    may_pause,
    shifted,
)
from tests.app.calendars import ANY_MOMENT, ANY_ZONE, DAY, at

GDPR, CCPA = Regulation.GDPR, Regulation.CCPA
POLICY = Clock(source="our own", term=Term(months=2))


def test_gdpr_alone_lets_a_clock_stand_still_and_says_by_which_article() -> None:
    assert may_pause(GDPR, PauseGround.IDENTITY)
    assert may_pause(GDPR, PauseGround.CLARIFICATION)
    assert not any(may_pause(CCPA, ground) or may_pause(POLICY, ground) for ground in PauseGround)
    assert "12(3) and (6)" in CLOCKS[GDPR].source
    assert "7021" in CLOCKS[CCPA].source


@given(due=ANY_MOMENT, zone=ANY_ZONE, pause=st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_pause_moves_a_deadline_by_just_its_length(
    due: datetime, zone: ZoneInfo, pause: timedelta
) -> None:
    assert shifted(due.astimezone(zone), pause) - due == pause


def test_a_pause_over_a_change_of_clocks_counts_hours_and_not_dates() -> None:
    moved = shifted(at("2026-03-28T12:00", "Europe/Berlin"), DAY)
    assert moved == at("2026-03-29T11:00")
    assert moved.tzinfo is UTC


def test_no_pause_makes_a_deadline_earlier() -> None:
    due = at("2026-01-01T00:00")
    assert shifted(due, timedelta(0)) == due
    with pytest.raises(ValueError, match="pause"):
        shifted(due, timedelta(microseconds=-1))


@pytest.mark.parametrize(
    ("zone", "left"), [("UTC", 1), ("Pacific/Kiritimati", 0), ("America/New_York", 0)]
)
def test_days_left_are_those_of_the_zone(zone: str, left: int) -> None:
    due, now = at("2026-03-02T02:00"), at("2026-03-01T23:00")
    assert days_left(due, now, ZoneInfo(zone)) == left
    assert days_left(now, due, ZoneInfo(zone)) == -left


@given(due=ANY_MOMENT, days=st.integers(-400, 400), zone=ANY_ZONE)
@settings(deadline=None)
def test_days_left_are_as_many_as_one_can_walk(due: datetime, days: int, zone: ZoneInfo) -> None:
    now = due - days * DAY
    here, end = sorted([now.astimezone(zone).date(), due.astimezone(zone).date()])
    steps = 0
    while here < end:
        here, steps = here + DAY, steps + 1
    assert days_left(due, now, zone) == (steps if now <= due else -steps)
