"""Business days in the USA: not a weekend, not the day on which a federal holiday is observed."""

from calendar import FRIDAY, MONDAY, SATURDAY, SUNDAY, THURSDAY
from datetime import date, timedelta

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)

# 5 U.S.C. § 6103(a), as it stands since 2021. Inauguration Day is left out: it holds around
# Washington alone.
_ON_A_DATE = {(1, 1), (6, 19), (7, 4), (11, 11), (12, 25)}
_ON_THE_NTH = {
    (1, MONDAY, 3),
    (2, MONDAY, 3),
    (9, MONDAY, 1),
    (10, MONDAY, 2),
    (11, THURSDAY, 4),
}


def is_federal_holiday(day: date) -> bool:
    """Tell whether a federal holiday is observed on a day.

    One that falls on a Saturday is observed on the Friday before it (5 U.S.C. § 6103(b)), and one
    on a Sunday on the Monday after (Executive Order 11582); hence possibly in another year.
    """
    weekday = day.weekday()
    dates = [day]
    if weekday == FRIDAY:
        dates.append(day + _DAY)
    if weekday == MONDAY:
        dates.append(day - _DAY)
    if weekday not in (SATURDAY, SUNDAY) and any((d.month, d.day) in _ON_A_DATE for d in dates):
        return True
    nth = (day.day - 1) // 7 + 1
    memorial = day.month == 5 and weekday == MONDAY and (day + _WEEK).month == 6
    return memorial or (day.month, weekday, nth) in _ON_THE_NTH


def is_business_day(day: date) -> bool:
    """Tell whether a day is neither on a weekend nor a federal holiday."""
    return day.weekday() not in (SATURDAY, SUNDAY) and not is_federal_holiday(day)


def business_day_after(day: date, count: int) -> date:
    """Return the day on which so many business days have passed, the first day not counted.

    Raises:
        ValueError: the count is not positive.

    """
    if count < 1:
        raise ValueError("count at least one business day")
    while count:
        day += _DAY
        count -= is_business_day(day)
    return day
