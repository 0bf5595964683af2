"""The newest events of the log, in memory, for all streams of a process."""

from bisect import bisect_left
from collections.abc import Sequence

from app.events.reading import Batch, Told

# Looked through by a stream at once; others get their turn after each part.
PART = 1_000


class Tail:
    """What the log tells from some position on. It forgets its oldest part when it grows too long.

    Nothing is known until it has been extended once.
    """

    def __init__(self, keep: int) -> None:
        """Take how many events to keep."""
        self._keep = keep
        self._told: list[Told] = []
        self._start: int | None = None
        self._size = 0

    @property
    def size(self) -> int | None:
        """Up to which position it reaches; None while nothing is known."""
        return None if self._start is None else self._size

    def extend(self, told: Sequence[Told], size: int) -> None:
        """Add what the log told since, up to a size; the first time, begin there."""
        if self._start is None:
            self._start = size
        else:
            self._told += told
        self._size = size
        # Rarely, and then half of it: moving the rest takes as long as its length.
        if len(self._told) > self._keep:
            forgotten = len(self._told) - self._keep // 2
            self._start = self._told[forgotten - 1].position + 1
            del self._told[:forgotten]

    def since(self, position: int) -> Batch | None:
        """Return some of what was told from a position on; None if it begins later."""
        if self._start is None or position >= self._size:
            return Batch((), position)
        if position < self._start:
            return None
        first = bisect_left(self._told, position, key=lambda told: told.position)
        last = first + PART
        upto = self._told[last].position if last < len(self._told) else self._size
        return Batch(self._told[first:last], upto)
