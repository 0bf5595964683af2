"""Keep a lease while the work goes on, from a thread of its own."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy.exc import DBAPIError

from app.crash_points import CrashPoint, reach
from app.errors import LeaseLost

log = structlog.get_logger()

# Renewals in the life of a lease: as many as may fail in a row, plus one.
BEATS_PER_LEASE = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is."""

    phase: str
    fraction: float


class Heartbeat:
    """Renews a lease while its block runs; tells the work when the lease is lost.

    A renewal that the database does not answer is tried again at the next beat. When none was
    answered for a whole lease, another worker may have the work, and the lease counts as lost.
    """

    def __init__(
        self, renew: Callable[[Mapping[str, Any] | None], None], lease: timedelta, subject: str
    ) -> None:
        """Take the function that renews with the progress, and raises LeaseLost."""
        self._renew = renew
        self._beat_seconds = lease.total_seconds() / BEATS_PER_LEASE
        self._subject = subject
        self._progress: Progress | None = None
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Start beating."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop beating; the lease stays until it is given back or runs out."""
        self._ended.set()
        self._thread.join()

    def is_lost(self) -> bool:
        """Tell whether the work is void."""
        return self._lost.is_set()

    def report(self, phase: str, fraction: float) -> None:
        """Note how far the work is, for the next beat."""
        reach(CrashPoint.TRAINING)
        self._progress = Progress(phase, min(1.0, max(0.0, fraction)))

    def _beat(self) -> None:
        failures = 0
        while not self._ended.wait(self._beat_seconds):
            progress = self._progress
            try:
                self._renew(
                    None
                    if progress is None
                    else {"phase": progress.phase, "fraction": progress.fraction}
                )
                failures = 0
            except LeaseLost:
                log.warning("lease.lost", subject=self._subject)
                self._lost.set()
                return
            except DBAPIError as error:
                failures += 1
                log.warning("lease.not_renewed", subject=self._subject, error=type(error).__name__)
                if failures >= BEATS_PER_LEASE:
                    self._lost.set()
                    return
