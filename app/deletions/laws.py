"""What sets a request's clock: a law, or the policy of one's own that the settings have."""

from app.custom_clock import Span
from app.deletions.clocks import Clock, PauseGround, Regulation, Term
from app.errors import NoCustomClock
from app.settings import settings

SOURCE = "the policy in LETHE_CUSTOM_CLOCK"


def law_of(regulation: Regulation) -> Regulation | Clock:
    """Return what the functions of ``clocks`` take for a regulation.

    Raises:
        NoCustomClock: it is the policy of one's own, and none is configured.

    """
    if regulation is not Regulation.CUSTOM:
        return regulation
    configured = settings().custom_clock
    if configured is None:
        raise NoCustomClock("`custom` needs the setting LETHE_CUSTOM_CLOCK.")
    return Clock(
        source=SOURCE,
        term=_term(configured.term),
        extension=None if configured.extension is None else _term(configured.extension),
        confirm_days=configured.confirm_days,
        pauses=frozenset(PauseGround(ground) for ground in configured.pauses),
    )


def _term(span: Span) -> Term:
    return Term(span.months, span.days)
