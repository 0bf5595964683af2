"""Is the log whole, and does it say what the tables say? (Invariant 6.)"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app.audit import ledger
from app.moves import MOVES
from app.statuses import RequestStatus
from app.tables import DeletionRequest, UnlearningJob
from lethe.verify import EMPTY_ROOT, leaf_hash, node_hash
from tests.chaos.checker.snapshot import Snapshot, Violation
from tests.chaos.history import History

TABLES = {
    "models": "model",
    "versions": "version",
    "requests": "deletion_request",
    "erasures": "erasure",
    "jobs": "job",
}


def log(now: Snapshot, history: History) -> Iterator[Violation]:
    """Yield where the log contradicts itself, what was shown of it, or the rows."""
    placed = [entry for entry in now.entries if entry.position is not None]
    roots = dict(roots_at(history.heads, [entry.payload.encode() for entry in placed]))
    for size, root in history.heads.items():
        if roots.get(size) != root:
            yield Violation("log", f"the tree head of size {size} that was shown does not hold")
    last = {entry.subject: entry.event for entry in now.entries}
    for table, subject in TABLES.items():
        for id_, row in getattr(now, table).items():
            expected = f"{subject}.{row['status']}"
            if last.get(id_) != expected:
                what = f"{subject} {id_} is {row['status']}, and logged as {last.get(id_)}"
                yield Violation("log", what)
    # Nobody reopens a request here.
    ended = {RequestStatus.CANCELLED: set(), RequestStatus.REJECTED: set()}
    moves = {**MOVES[DeletionRequest], **ended}
    yield from _impossible_moves("deletion_request", moves, history.statuses)
    yield from _impossible_moves("job", MOVES[UnlearningJob], history.job_statuses)


def replayed(url: str) -> Iterator[Violation]:
    """Yield what the product's own replay of the log finds."""
    engine = create_engine(url)
    try:
        with Session(engine) as session:
            for problem in ledger.replay(session):
                yield Violation("log", problem)
    finally:
        engine.dispose()


def roots_at(sizes: Iterable[int], payloads: list[bytes]) -> Iterator[tuple[int, str]]:
    """Yield the root over the first entries, for each of the sizes, in one pass.

    Of each size the complete subtrees are kept, the largest first, as in binary addition.
    """
    wanted = sorted(set(sizes))
    subtrees: list[tuple[int, bytes]] = []  # height and hash
    for size in range(len(payloads) + 1):
        if size:
            subtrees.append((0, leaf_hash(payloads[size - 1])))
        while len(subtrees) > 1 and subtrees[-1][0] == subtrees[-2][0]:
            right, left = subtrees.pop(), subtrees.pop()
            subtrees.append((left[0] + 1, node_hash(left[1], right[1])))
        if wanted and wanted[0] == size:
            wanted.pop(0)
            yield size, _fold(subtrees).hex()


def _fold(subtrees: list[tuple[int, bytes]]) -> bytes:
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1][1]
    for _, left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root


def _impossible_moves(
    subject: str, moves: Mapping[str, Iterable[str]], seen: Mapping[str, list[str]]
) -> Iterator[Violation]:
    reachable = {status: _closure(moves, status) for status in moves}
    for id_, statuses in seen.items():
        for before, after in pairwise(statuses):
            if after not in reachable[before]:
                yield Violation("log", f"{subject} {id_} was seen to go from {before} to {after}")


def _closure(moves: Mapping[str, Iterable[str]], status: str) -> set[str]:
    found: set[str] = set()
    edge = set(moves[status])
    while edge:
        found |= edge
        edge = {to for one in edge for to in moves[one]} - found
    return found
