"""How long to wait before a call is repeated that met no service, or a busy one."""

import time
from collections.abc import Mapping

# Too many requests, and three ways of saying that a service will be back.
PASSING = frozenset({429, 502, 503, 504})
FIRST_SECONDS = 0.2
LONGEST_SECONDS = 30.0


class Pause:
    """The pauses of one call, longer each time, that end with its patience."""

    def __init__(self, patience: float) -> None:
        """Take the seconds after which no repetition begins."""
        self._ends_at = time.monotonic() + patience
        self._next = FIRST_SECONDS

    def take(self, jitter: float, suggested: float | None = None) -> bool:
        """Wait, if patience allows; tell whether to try again.

        Args:
            jitter: between 0 and 1, drawn anew each time, so that callers do not come together.
            suggested: seconds that the service wants to be left alone.

        """
        chosen = max(self._next * (0.5 + jitter / 2), suggested or 0.0)
        if time.monotonic() + chosen > self._ends_at:
            return False
        time.sleep(chosen)
        self._next = min(2 * self._next, LONGEST_SECONDS)
        return True


def pause_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`, if an answer has it in that form."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
