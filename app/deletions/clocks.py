"""How long a regulation leaves; a clock belongs to a regulation."""

from datetime import datetime
from enum import StrEnum

from dateutil.relativedelta import relativedelta


class Regulation(StrEnum):
    """The law that a request rests on."""

    GDPR = "gdpr"
    CCPA = "ccpa"
    NONE = "none"


# GDPR Art. 12(3): one calendar month, ending on the last day of a shorter one (Regulation
# 1182/71, Art. 3). CCPA, 11 CCR § 7021: 45 calendar days.
_TERMS = {
    Regulation.GDPR: relativedelta(months=1),
    Regulation.CCPA: relativedelta(days=45),
}


def due_at(regulation: Regulation, received_at: datetime) -> datetime | None:
    """Return the legal deadline; None where no law sets one."""
    term = _TERMS.get(regulation)
    return None if term is None else received_at + term
