"""Cut a stream of bytes into lines, none of which is kept beyond its limit."""

from collections.abc import Iterator


class Cutter:
    """Holds the line that has begun; lines end with LF, and so may the last one not."""

    def __init__(self, limit: int) -> None:
        """Take the most bytes of a line."""
        self._limit = limit
        self._begun = bytearray()
        self._is_too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the lines that end in this chunk, without their ends; None for one too long."""
        *ended, begun = chunk.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._take()
        self._add(begun)

    def end(self) -> Iterator[bytes | None]:
        """Yield the last line, if the stream ended without the end of one."""
        if self._begun or self._is_too_long:
            yield self._take()

    def _add(self, part: bytes) -> None:
        if self._is_too_long or len(self._begun) + len(part) > self._limit:
            self._is_too_long = True
            self._begun.clear()
        else:
            self._begun += part

    def _take(self) -> bytes | None:
        line = None if self._is_too_long else bytes(self._begun)
        self._begun.clear()
        self._is_too_long = False
        return line
