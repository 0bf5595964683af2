"""The whole log as JSON Lines, for whoever replays it: entries in order, then its signed heads."""

from collections.abc import Iterator

import rfc8785
from sqlalchemy import select

from app.audit import heads, ledger, signed_heads
from app.db import transaction
from app.tables import SignedHead
from lethe.verify.note import Checkpoint

FORMAT = "lethe-log-v1"
MEDIA_TYPE = "application/jsonl"
# Rows in the memory of this process at a time, and in one transaction.
BATCH = 1_000


def begin() -> Iterator[bytes]:
    """Sign a head over the log as it is now; return the lines of the export that it ends.

    No transaction is open between two batches of lines.

    Raises:
        NotSigning: the key is retired, or the log contradicts what it signed before.

    """
    checkpoint, note = heads.current()
    return _lines(checkpoint, note)


def _lines(last: Checkpoint, note: str) -> Iterator[bytes]:
    yield _line({"format": FORMAT, "origin": last.origin})
    for start in range(0, last.size, BATCH):
        with transaction() as session:
            leaves = ledger.leaves(session, start, min(BATCH, last.size - start))
        yield b"".join(_line({"entry": leaf.payload}) for leaf in leaves)
    after: int | None = 0
    while after is not None:
        notes, after = _heads(last.origin, after, note)
        yield b"".join(_line({"checkpoint": each}) for each in notes)


def _heads(origin: str, after: int, last: str) -> tuple[list[str], int | None]:
    """Return some signed heads after one, up to the last; and after which one to go on, if any."""
    with transaction() as session:
        rows = session.execute(
            select(SignedHead.id, SignedHead.note)
            .where(signed_heads.of_log(origin), SignedHead.id > after)
            .order_by(SignedHead.id)
            .limit(BATCH)
        ).all()
    notes = [note for _, note in rows]
    if last in notes:
        return notes[: notes.index(last) + 1], None
    return notes, rows[-1].id if rows else None


def _line(content: dict[str, str]) -> bytes:
    return rfc8785.dumps(content) + b"\n"
