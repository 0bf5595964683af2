"""Write what a job came to, through a database that restarts meanwhile."""

from collections.abc import Callable
from typing import TypeVar

import stamina
from sqlalchemy.exc import OperationalError

from app.errors import LeaseLost
from workers.heartbeat import Heartbeat

T = TypeVar("T")

LONGEST_PAUSE_SECONDS = 5.0


def while_held(heartbeat: Heartbeat, write: Callable[[], T]) -> T:
    """Call a function that writes, again and again while the database does not answer.

    Hours of training are not thrown away for a database that is down for a minute. The lease
    bounds it: when nobody answered for its whole length, another worker may have the work.

    Raises:
        LeaseLost: the lease was lost meanwhile.

    """
    for attempt in stamina.retry_context(
        on=OperationalError, attempts=None, timeout=None, wait_max=LONGEST_PAUSE_SECONDS
    ):
        with attempt:
            if heartbeat.is_lost():
                raise LeaseLost("the database did not answer for as long as the lease")
            return write()
    raise AssertionError("unreachable: attempts are not bounded")
