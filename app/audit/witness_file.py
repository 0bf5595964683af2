"""The witness file: a line for each signed head, where a copy of the database cannot reach it.

It is the service's own memory of what it signed, outside the database, and a feed for others.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from app.audit import signed_heads
from app.db import transaction
from app.settings import settings
from lethe.verify.note import peek
from lethe.verify.reasons import NotProven

log = structlog.get_logger()

# A line has a note of at most 2,000 characters and 64 hashes.
_LONGEST_BYTES = 16_384


class Damaged(ValueError):
    """The file's end is not what this service writes."""


def last_note(path: Path) -> str | None:
    """Return the newest head in the file; None where there is no file, or nothing in it.

    Raises:
        OSError: the file cannot be read.
        Damaged: its last line is not one of a witness feed.

    """
    try:
        with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as file:
            return _note(_last_line(file)[0])
    except FileNotFoundError:
        return None


def write_down() -> None:
    """Append the newest signed head, unless the file has it; what it lacks, the next one brings."""
    path = settings().witness_file
    if path is None:
        return
    try:
        is_new = not path.exists()
        with _locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as file:
            line, end = _last_line(file)
            message = _next(_note(line))
            if message is None:
                return
            if end != os.fstat(file).st_size:
                os.ftruncate(file, end)  # what a crash left of a line
            _write(file, message + b"\n")
            os.fsync(file)
        if is_new:
            _sync_folder(path.parent)
    except (OSError, Damaged) as error:
        log.error("witness_file.failed", error=type(error).__name__)


def _next(last: str | None) -> bytes | None:
    with transaction() as session:
        signed = signed_heads.latest(session)
        if signed is None:
            return None
        if last is None:
            return signed_heads.message(session, 0, signed)
        before = signed_heads.Signed(peek(last), last)
        # A file of another log, or one that is ahead, is for the next signature to refuse.
        if before.checkpoint.origin != signed.checkpoint.origin or before.age >= signed.age:
            return None
        return signed_heads.message(session, before.checkpoint.size, signed)


def _note(line: bytes | None) -> str | None:
    if line is None:
        return None
    try:
        note = json.loads(line)["checkpoint"]
        peek(note)
    except (ValueError, KeyError, TypeError, AttributeError, NotProven):
        raise Damaged("the witness file's last line is not one of its own") from None
    return str(note)


def _last_line(file: int) -> tuple[bytes | None, int]:
    # The last whole line, and where it ends.
    size = os.fstat(file).st_size
    start = max(0, size - 2 * _LONGEST_BYTES)
    tail = os.pread(file, size - start, start)
    end = tail.rfind(b"\n") + 1
    if end == 0:
        if start:
            raise Damaged("the witness file has no lines")
        return None, 0
    line = tail[: end - 1].rpartition(b"\n")[2]
    if len(line) > _LONGEST_BYTES:
        raise Damaged("the witness file's last line is too long")
    return line, start + end


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


@contextmanager
def _locked(path: Path, flags: int, operation: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, operation)
        yield file
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
