"""Replay an exported log: every entry, the root at every signed head, every model's versions.

Memory grows with the number of heads and versions, not with that of the entries.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from lethe.verify import documents
from lethe.verify.chains import Chains
from lethe.verify.documents import Malformed, members, text
from lethe.verify.entries import Entry, read_entry
from lethe.verify.keys import VerifyingKey
from lethe.verify.merkle import EMPTY_ROOT, node_hash
from lethe.verify.note import Checkpoint, open_note, peek
from lethe.verify.reasons import NotProven, Reason

FORMAT = "lethe-log-v1"
LONGEST_LINE = 32 * 1024 * 1024

Watch = Callable[[int, Entry], None]


@dataclass(frozen=True, slots=True)
class ReplayedLog:
    """A log whose entries, heads and chains of versions fit each other."""

    origin: str
    size: int
    heads: int
    """How many signed heads were checked, without those pinned."""
    last: Checkpoint
    status: Mapping[UUID, str]
    """By version: the last event about it."""


@dataclass(slots=True)
class Frontier:
    """The complete subtrees of a growing Merkle tree, one for each power of two."""

    size: int = 0
    _subtrees: list[bytes | None] = field(default_factory=list)

    def add(self, leaf: bytes) -> None:
        """Append a leaf hash, as one carries digits in binary addition."""
        carry = leaf
        self.size += 1
        for level, subtree in enumerate(self._subtrees):
            if subtree is None:
                self._subtrees[level] = carry
                return
            carry = node_hash(subtree, carry)
            self._subtrees[level] = None
        self._subtrees.append(carry)

    def root(self) -> bytes:
        """Return the root over all leaves so far (RFC 9162, 2.1.1)."""
        root: bytes | None = None
        for subtree in self._subtrees:
            if subtree is not None:
                root = subtree if root is None else node_hash(subtree, root)
        return EMPTY_ROOT if root is None else root


def verify_log(
    source: Path | BinaryIO, keys: Sequence[VerifyingKey], pinned: Sequence[str] = ()
) -> ReplayedLog:
    """Replay an exported log and hold it against heads that others keep.

    Args:
        source: the export, from its first line on.
        keys: those that may have signed its heads.
        pinned: signed notes, such as a witness keeps.

    Raises:
        NotProven: the log contradicts itself, its heads, or a pinned head.
        OSError: it cannot be read.

    """
    return replay(source, keys, [open_note(note, keys) for note in pinned])


def replay(
    source: Path | BinaryIO,
    keys: Sequence[VerifyingKey],
    pinned: Sequence[Checkpoint],
    watch: Watch | None = None,
) -> ReplayedLog:
    """Replay a log, and show each entry with its position to whoever watches.

    Raises:
        NotProven: the log contradicts itself, its heads, or a pinned head.
        OSError: it cannot be read.

    """
    with _seekable(source) as file:
        start = file.tell()
        # Heads follow the entries, and their roots are needed while these go by.
        wanted = {head.size for head in pinned} | _sizes_of_heads(file)
        file.seek(start)
        return _Replay(keys, wanted, watch).run(file, pinned)


@dataclass(slots=True)
class _Replay:
    keys: Sequence[VerifyingKey]
    wanted: set[int]
    watch: Watch | None
    frontier: Frontier = field(default_factory=Frontier)
    roots: dict[int, bytes] = field(default_factory=dict)
    chains: Chains = field(default_factory=Chains)
    contradiction: NotProven | None = None

    def run(self, file: BinaryIO, pinned: Sequence[Checkpoint]) -> ReplayedLog:
        lines = _lines(file)
        origin = _origin(next(lines, None))
        heads: list[Checkpoint] = []
        self._note_root()
        for line in lines:
            match line:
                case {"entry": str(payload), **rest} if not rest and not heads:
                    self._take(payload)
                case {"checkpoint": str(note), **rest} if not rest:
                    heads.append(self._check_head(note, origin, heads))
                case _:
                    raise _malformed("neither an entry nor, after these, a tree head")
        if not heads:
            raise NotProven(Reason.LOG_TRUNCATED, "it ends before its signed heads")
        if heads[-1].size != self.frontier.size:
            raise NotProven(Reason.LOG_UNCOVERED, "the last signed head does not cover all entries")
        for head in pinned:
            self._check_pinned(head, origin)
        if self.contradiction is not None:
            raise self.contradiction
        return ReplayedLog(
            origin, self.frontier.size, len(heads), heads[-1], dict(self.chains.status)
        )

    def _take(self, payload: str) -> None:
        position = self.frontier.size
        try:
            entry = read_entry(payload)
        except NotProven as error:
            raise _malformed(f"entry {position}: {error.detail}") from None
        self.frontier.add(entry.hash)
        self._note_root()
        if self.watch is not None:
            self.watch(position, entry)
        if self.contradiction is None:
            try:
                self.chains.take(position, entry)
            except NotProven as error:
                # First whether these are the entries that were signed at all.
                self.contradiction = error

    def _note_root(self) -> None:
        if self.frontier.size in self.wanted:
            self.roots[self.frontier.size] = self.frontier.root()

    def _check_head(self, note: str, origin: str, before: Sequence[Checkpoint]) -> Checkpoint:
        head = open_note(note, self.keys)
        if head.origin != origin:
            raise NotProven(Reason.OTHER_LOG, "a signed head of another log")
        if before and head.size < before[-1].size:
            raise _malformed("the signed heads are not in order")
        if head.size > self.frontier.size:
            raise NotProven(
                Reason.LOG_TRUNCATED,
                f"a head signed for {head.size} entries, and there are {self.frontier.size}",
            )
        if self.roots.get(head.size) != head.root_hash:
            raise NotProven(
                Reason.LOG_ROOT_DIFFERS, f"the head of size {head.size} is not over these entries"
            )
        return head

    def _check_pinned(self, head: Checkpoint, origin: str) -> None:
        if head.origin != origin:
            raise NotProven(Reason.OTHER_LOG, "a pinned head of another log")
        if head.size > self.frontier.size:
            raise NotProven(
                Reason.LOG_TRUNCATED,
                f"a pinned head was signed for {head.size} entries, "
                f"and there are {self.frontier.size}",
            )
        if self.roots.get(head.size) != head.root_hash:
            raise NotProven(
                Reason.LOG_FORKED, f"another log of this name was signed at size {head.size}"
            )


def _origin(header: Any) -> str:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise NotProven(Reason.UNKNOWN_FORMAT, f"the first line does not say {FORMAT}")
    try:
        return text(members(header, "header", "format", "origin")["origin"], "header.origin")
    except Malformed as error:
        raise _malformed(str(error)) from None


def _sizes_of_heads(file: BinaryIO) -> set[int]:
    sizes: set[int] = set()
    for line in _raw_lines(file):
        if line.startswith(b'{"checkpoint":'):
            try:
                sizes.add(peek(documents.parse(line)["checkpoint"]).size)
            except (NotProven, TypeError, AttributeError):
                continue  # the replay refuses it in its place
    return sizes


def _lines(file: BinaryIO) -> Iterator[Any]:
    for number, line in enumerate(_raw_lines(file), 1):
        try:
            yield documents.parse(line)
        except NotProven as error:
            raise _malformed(f"line {number}: {error.detail}") from None


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise _malformed(f"a line of more than {LONGEST_LINE} bytes")
        if not line.endswith(b"\n"):
            raise NotProven(Reason.LOG_TRUNCATED, "it ends within a line")
        yield line[:-1]


@contextmanager
def _seekable(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    elif source.seekable():
        yield source
    else:
        with tempfile.TemporaryFile() as copy:
            while block := source.read(1 << 20):
                copy.write(block)
            copy.seek(0)
            yield copy


def _malformed(detail: str) -> NotProven:
    return NotProven(Reason.LOG_MALFORMED, detail)
