"""How long a regulation leaves; a clock belongs to a regulation.

The day of receipt does not count, and a term of months ends on the date of the same number or on
the month's last day (Regulation 1182/71, Art. 3; California Civil Code § 10). By these rules a term
ends with the last hour of its last day. A deadline here is earlier: on that day, at the time of day
of the receipt. With a time zone that is set wrong, the last hours of a day would be promised that
are over where the law applies; and nobody should plan with them. For the same reason no deadline
moves on from a weekend or a holiday, although both laws allow it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from types import MappingProxyType

from dateutil.relativedelta import relativedelta

from app.deletions.business_days import business_day_after


class Regulation(StrEnum):
    """The law that a request rests on; or a policy of one's own, whose clock is configured."""

    GDPR = "gdpr"
    CCPA = "ccpa"
    CUSTOM = "custom"
    NONE = "none"


class PauseGround(StrEnum):
    """What a clock may wait for."""

    IDENTITY = "identity"
    CLARIFICATION = "clarification"


@dataclass(frozen=True, slots=True)
class Term:
    """A span of calendar months and days.

    Raises:
        ValueError: it is empty, or a part of it is negative.

    """

    months: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        """Refuse a term that ends before it began, or with it."""
        if min(self.months, self.days) < 0 or not (self.months or self.days):
            raise ValueError("a term has months or days, and neither is negative")

    def after(self, day: date) -> date:
        """Return the last day of the term; a month that is too short ends it with its last day."""
        return day + relativedelta(months=self.months, days=self.days)


@dataclass(frozen=True, slots=True)
class Clock:
    """What a regulation, or a policy of one's own, grants for an answer.

    An `extension` needs notice and reasons within the first `term`. `confirm_days` are business
    days. `pauses` are the grounds on which the law lets the clock stand still.

    Raises:
        ValueError: confirmation is due within less than one business day.

    """

    source: str
    term: Term
    extension: Term | None = None
    confirm_days: int | None = None
    pauses: frozenset[PauseGround] = frozenset()

    def __post_init__(self) -> None:
        """Refuse a confirmation that is due before anybody could give it."""
        if self.confirm_days is not None and self.confirm_days < 1:
            raise ValueError("leave at least one business day for the confirmation")


CLOCKS: Mapping[Regulation, Clock] = MappingProxyType(
    {
        Regulation.GDPR: Clock(
            # The guidelines speak of access; the second ground holds for erasure by analogy alone.
            source="GDPR Art. 12(3) and (6); EDPB Guidelines 01/2022, section 5.3",
            term=Term(months=1),
            extension=Term(months=2),
            pauses=frozenset({PauseGround.IDENTITY, PauseGround.CLARIFICATION}),
        ),
        Regulation.CCPA: Clock(
            # The 45 days run whatever time it takes to verify who asks.
            source="Cal. Civ. Code § 1798.130(a)(2); 11 CCR § 7021",
            term=Term(days=45),
            extension=Term(days=45),
            confirm_days=10,
        ),
    }
)


def clock_of(regulation: Regulation | Clock) -> Clock | None:
    """Return a regulation's clock, or the given one of a policy; None where no law sets one."""
    return regulation if isinstance(regulation, Clock) else CLOCKS.get(regulation)


def due_at(
    regulation: Regulation | Clock, received_at: datetime, zone: tzinfo = UTC
) -> datetime | None:
    """Return the legal deadline, in UTC; None where no law sets one.

    Raises:
        ValueError: the time of receipt has no time zone.

    """
    clock = clock_of(regulation)
    received = _local(received_at, zone)
    return None if clock is None else _on(clock.term.after(received.date()), received)


def extended_due_at(
    regulation: Regulation | Clock, received_at: datetime, zone: tzinfo = UTC
) -> datetime | None:
    """Return the deadline of an extended clock, in UTC; None where nothing may be extended.

    The extension is counted from the first term's last day. Three months at once from 31 January
    would end on 30 April, one month and then two on the 28th; the text of Art. 12(3) decides for
    neither, and the earlier one is safe.

    Raises:
        ValueError: the time of receipt has no time zone.

    """
    clock = clock_of(regulation)
    received = _local(received_at, zone)
    if clock is None or clock.extension is None:
        return None
    return _on(clock.extension.after(clock.term.after(received.date())), received)


def last_moment_to_extend(
    regulation: Regulation | Clock, received_at: datetime, zone: tzinfo = UTC
) -> datetime | None:
    """Return until when notice of an extension counts, in UTC; None where nothing may be extended.

    A pause of the first term moves this moment, too: see `shifted`.

    Raises:
        ValueError: the time of receipt has no time zone.

    """
    clock = clock_of(regulation)
    first = due_at(regulation, received_at, zone)
    return None if clock is None or clock.extension is None else first


def confirm_by(
    regulation: Regulation | Clock, received_at: datetime, zone: tzinfo = UTC
) -> datetime | None:
    """Return until when receipt is to be confirmed, in UTC; None where no law asks for it.

    The CCPA's rules do not say what a business day is: here, none is a weekend or an observed
    federal holiday, and further ones of a state would only give more time.

    Raises:
        ValueError: the time of receipt has no time zone.

    """
    clock = clock_of(regulation)
    received = _local(received_at, zone)
    if clock is None or clock.confirm_days is None:
        return None
    return _on(business_day_after(received.date(), clock.confirm_days), received)


def may_pause(regulation: Regulation | Clock, ground: PauseGround) -> bool:
    """Tell whether the law lets a clock stand still on a ground."""
    clock = clock_of(regulation)
    return clock is not None and ground in clock.pauses


def shifted(due_at: datetime, paused_for: timedelta) -> datetime:
    """Return a deadline, in UTC, moved by just the time that its clock stood still.

    Ask `may_pause` before a clock is paused; nothing here knows the ground.

    Raises:
        ValueError: the deadline has no time zone, or the pause is negative.

    """
    if paused_for < timedelta(0):
        raise ValueError("a pause is not negative")
    return _local(due_at, UTC) + paused_for


def days_left(due_at: datetime, now: datetime, zone: tzinfo = UTC) -> int:
    """Return the calendar days of a zone until a deadline; 0 on its day, negative after it.

    The day may have hours left when the deadline is over; compare moments to learn that.

    Raises:
        ValueError: one of the times has no time zone.

    """
    return (_local(due_at, zone).date() - _local(now, zone).date()).days


def _local(moment: datetime, zone: tzinfo) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError("a clock needs times with a time zone")
    return moment.astimezone(zone)


def _on(day: date, received: datetime) -> datetime:
    # When clocks change, a time of day comes twice or never. The earlier reading is taken; of one
    # that never comes, it lies before the gap.
    wall = datetime.combine(day, received.time(), received.tzinfo)
    return min(wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
