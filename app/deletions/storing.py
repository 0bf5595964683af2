"""Store several requests in one transaction, with an outcome for each: all that a client waits for.

Nobody is told of anything before its commit.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions.intake import Taken, submit_all
from app.deletions.submissions import Asked
from app.errors import LetheError

Answer = TypeVar("Answer")
Describe = Callable[[Session, Sequence[Taken]], Sequence[Answer]]

log = structlog.get_logger()

# SQLSTATE classes of a database that is away, ends, has no room, or does not give a lock.
AWAY = frozenset({"08", "53", "55", "57"})


def store(
    asked: Sequence[Asked], describe: Describe[Answer], tell: Callable[[], object]
) -> list[Answer | Exception]:
    """Store requests; return for each what ``describe`` says of it, or why it was not stored.

    If they cannot be stored together, for the fault of one of them, each is stored alone. After a
    commit with anything new, ``tell`` is called.
    """
    try:
        return _store(asked, describe, tell)
    except Exception as error:  # noqa: BLE001  # who asked gets it, and knows what to do
        if len(asked) == 1 or is_away(error):
            return [error] * len(asked)
        log.warning("intake.singly", requests=len(asked), error=type(error).__name__)
        return [outcome for one in asked for outcome in store([one], describe, tell)]


def is_away(error: Exception) -> bool:
    """Tell whether the database cannot store anything at the moment, whatever it is."""
    if isinstance(error, NoConnection):
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in AWAY


def _store(
    asked: Sequence[Asked], describe: Describe[Answer], tell: Callable[[], object]
) -> list[Answer | Exception]:
    with transaction() as session:
        outcomes = submit_all(session, asked)
        taken = [outcome for outcome in outcomes if isinstance(outcome, Taken)]
        answers = iter(describe(session, taken))
        reach(CrashPoint.SUBMIT_BEFORE_COMMIT)
    # Committed: only now may anybody act on it or hear of it.
    if any(one.is_new for one in taken):
        tell()
    reach(CrashPoint.SUBMIT_BEFORE_ANSWER)
    return [outcome if isinstance(outcome, LetheError) else next(answers) for outcome in outcomes]
