"""How often a job is tried again after an error, and how long it pauses before."""

import random
from dataclasses import dataclass
from datetime import timedelta

from app.settings import settings


@dataclass(frozen=True, slots=True)
class Retrying:
    """Bounds on the attempts at one job."""

    attempts: int
    """Failures after which it is given up."""
    delay: timedelta
    """The pause after the first failure."""
    delay_limit: timedelta

    def pause(self, failures: int) -> timedelta:
        """Return the pause after this many failures, 1 or more: exponential, with jitter.

        Between half of min(limit, delay·2^(failures - 1)) and all of it, so that jobs which failed
        together, for a database or a disk that was away, do not come back together.
        """
        whole, factor = self.delay_limit, 1 << (failures - 1)
        # Divided first, since a product may be longer than a timedelta can be.
        if self.delay <= self.delay_limit / factor:
            whole = min(self.delay * factor, self.delay_limit)
        return whole * random.uniform(0.5, 1.0)  # noqa: S311  # nothing secret


def retrying() -> Retrying:
    """Return the bounds that the settings give."""
    chosen = settings()
    return Retrying(chosen.job_attempts, chosen.retry_delay, chosen.retry_delay_limit)
