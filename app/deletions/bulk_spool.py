"""Answers that wait for a client which does not read yet: a client may send all before it reads."""

import tempfile
from pathlib import Path
from threading import Lock

# Kept in memory; more goes to a file that has no name and ends with the process.
IN_MEMORY_BYTES = 256 * 1024


class Spool:
    """Bytes that are read once, in the order in which they were written; for two threads."""

    def __init__(self, folder: Path) -> None:
        """Take where the file lies, if there must be one."""
        # The folder of the artifacts: a temporary one may itself be memory.
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.SpooledTemporaryFile[bytes](  # closed by close()
            IN_MEMORY_BYTES, dir=str(folder)
        )
        self._lock = Lock()
        self._read = 0
        self._written = 0

    @property
    def unread(self) -> int:
        """How many bytes wait."""
        with self._lock:
            return self._written - self._read

    def write(self, content: bytes) -> None:
        """Add to the end."""
        with self._lock:
            self._file.seek(self._written)
            self._file.write(content)
            self._written += len(content)

    def read(self, most: int) -> bytes:
        """Return the next bytes, at most so many; none if nothing waits."""
        with self._lock:
            self._file.seek(self._read)
            content = self._file.read(min(most, self._written - self._read))
            self._read += len(content)
            if self._read == self._written:
                # Nobody needs them any more, and the disk may.
                self._file.seek(0)
                self._file.truncate()
                self._read = self._written = 0
            return content

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
