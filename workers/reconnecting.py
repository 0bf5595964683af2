"""Come back soon after the broker does.

Celery waits 2 s longer after each attempt to reach a broker, up to 30 s, so that after an outage of
a minute everything would stand still for half a minute more.
"""

from typing import Any

import kombu
from celery.app.amqp import AMQP

from app.settings import settings

# Between attempts, as a share of the planning interval: the worker of the schedule, its clock and
# the worker of the jobs come back one after the other, and all within one interval.
SHARE = 0.1


class Connection(kombu.Connection):
    """A connection to the broker that is tried again at a steady pace."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect; pause between attempts, in seconds, for a share of the planning interval."""
        pause = settings().plan_interval.total_seconds() * SHARE
        steady = {"interval_start": pause, "interval_step": 0, "interval_max": pause}
        return super().ensure_connection(*args, **{**options, **steady})


class Messages(AMQP):
    """Celery's way to its broker, with such connections."""

    Connection = Connection
