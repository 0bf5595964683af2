"""Calendars without arithmetic: days are walked, and moments are searched."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from app.deletions.clocks import Regulation

DAY = timedelta(days=1)
# Clock changes of half an hour, of two hours, backwards in summer, at midnight, and of a whole day.
ZONES: list[ZoneInfo | timezone] = [
    *map(ZoneInfo, ["UTC", "Etc/GMT+12", "Pacific/Kiritimati", "Europe/Berlin", "Europe/Dublin"]),
    *map(ZoneInfo, ["America/Los_Angeles", "America/St_Johns", "America/Sao_Paulo"]),
    *map(ZoneInfo, ["Australia/Lord_Howe", "Antarctica/Troll", "Africa/Cairo", "Asia/Beirut"]),
    *map(ZoneInfo, ["Asia/Kathmandu", "Africa/Casablanca", "Pacific/Apia"]),
    timezone(timedelta(hours=-12)),
    timezone(timedelta(hours=14)),
]
ANY_ZONE = st.sampled_from(ZONES)
_YEARS = st.integers(
    int(datetime(1996, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(2104, 1, 1, tzinfo=UTC).timestamp()),
)
ANY_MOMENT = st.builds(
    lambda seconds, micros: datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros),
    _YEARS,
    st.integers(0, 999_999),
)


def _changes() -> Iterator[tuple[ZoneInfo | timezone, date]]:
    days = [datetime(2005, 1, 1, 12, tzinfo=UTC) + n * DAY for n in range(20 * 366)]
    for zone in ZONES:
        offsets = [day.astimezone(zone).utcoffset() for day in days]
        for day, before, after in zip(days[1:], offsets, offsets[1:], strict=False):
            if before != after:
                yield from ((zone, (day + n * DAY).date()) for n in (-1, 0))


# Days on which, or beside which, the clocks of a zone change.
CHANGES = list(_changes())


def at(text: str, zone: str = "UTC", fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def walked_months(day: date, months: int) -> date:
    """Walk on from a day until the month is over or the number of the day comes."""
    number, entered = day.day, 0
    while True:
        before, day = day, day + DAY
        entered += day.month != before.month
        if entered == months and day.day == number:
            return day
        if entered > months:
            return before


def walked_days(day: date, days: int) -> date:
    for _ in range(days):
        day += DAY
    return day


def walked_term(regulation: Regulation, day: date) -> date:
    return walked_months(day, 1) if regulation is Regulation.GDPR else walked_days(day, 45)


def walked_extension(regulation: Regulation, day: date) -> date:
    first = walked_term(regulation, day)
    return walked_months(first, 2) if regulation is Regulation.GDPR else walked_days(first, 45)


def around(day: date) -> Iterator[datetime]:
    """All quarters of an hour, in UTC, at which it may be that day somewhere, and the next."""
    noon = datetime.combine(day, time(12), UTC)
    return (noon + timedelta(minutes=15 * step) for step in range(-4 * 40, 4 * 64))


def end_of(day: date, zone: ZoneInfo | timezone) -> datetime:
    return next(moment for moment in around(day) if moment.astimezone(zone).date() > day)


def readings(wall: datetime, zone: ZoneInfo | timezone) -> list[datetime]:
    """Each moment, in UTC, at which clocks of a zone show a time: none, one or two."""
    offsets = {moment.astimezone(zone).utcoffset() for moment in around(wall.date())}
    moments = {(wall - offset).replace(tzinfo=UTC) for offset in offsets if offset is not None}
    return sorted(m for m in moments if m.astimezone(zone).replace(tzinfo=None) == wall)


def at_the_time_of_receipt(
    last_day: date, received_at: datetime, zone: ZoneInfo | timezone
) -> datetime:
    """Search for the earliest moment at which clocks show that day and time.

    Where they skip it, the moment is reckoned back by what they show after the gap.
    """
    wall = datetime.combine(last_day, received_at.astimezone(zone).time())
    found = readings(wall, zone)
    if found:
        return found[0]
    after = next(m for m in around(last_day) if m.astimezone(zone).replace(tzinfo=None) > wall)
    offset = after.astimezone(zone).utcoffset()
    assert offset is not None
    return (wall - offset).replace(tzinfo=UTC)
