"""Check a receipt offline, for whoever trusts the keys alone."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lethe.verify import documents
from lethe.verify.agreement import check_erasures, check_request, check_subjects, last_word
from lethe.verify.documents import Malformed, hash_, items, members, text, whole
from lethe.verify.dsse import open_envelope
from lethe.verify.entries import Entry, read_entry
from lethe.verify.keys import VerifyingKey
from lethe.verify.lineage import Step, trace
from lethe.verify.log import ReplayedLog, replay
from lethe.verify.merkle import verify_inclusion
from lethe.verify.note import Checkpoint, open_note, open_signed
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.request_entries import MOVED, Arrival
from lethe.verify.signers import check_life
from lethe.verify.statement import Statement, read_statement

FORMAT = "lethe-receipt-v1"


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt that holds, and what it was held against."""

    statement: Statement
    signers: Sequence[VerifyingKey]
    """Of the statement, and of the tree head."""
    head: Checkpoint
    arrival: Arrival
    entries: int
    """How many entries of the log it quotes."""
    steps: Sequence[Step]
    weights_of: Step | None
    """The version whose weights were given."""
    log: ReplayedLog | None
    pinned: Sequence[Checkpoint]


@dataclass(frozen=True, slots=True)
class _Quoted:
    position: int
    entry: Entry


def verify_receipt(
    content: bytes,
    keys: Sequence[VerifyingKey],
    *,
    weights: Path | BinaryIO | None = None,
    log: Path | BinaryIO | None = None,
    pinned: Sequence[str] = (),
) -> Verified:
    """Check a receipt, and what is given beside it.

    Args:
        content: the receipt, as it was handed out.
        keys: those that may have signed it.
        weights: the file that is served.
        log: an exported log that reaches at least as far as the receipt's tree head.
        pinned: signed notes, such as a witness keeps.

    Raises:
        NotProven: anything of it does not hold.
        OSError: a file cannot be read.

    """
    receipt = _open(content)
    payload, signer = open_envelope(receipt["envelope"], keys)
    statement = read_statement(payload)
    check_life(keys, signer, statement.issued_at)
    head, head_signer, quoted = _read_log(receipt["log"], keys)
    if head.origin != statement.origin:
        raise NotProven(Reason.OTHER_LOG, "the tree head is not of the log that the issuer names")
    id_ = statement.request.id
    about = [each.entry for each in quoted if each.entry.subject == id_]
    others = [(each.position, each.entry) for each in quoted if each.entry.subject != id_]
    arrival, outcome = check_request(statement.request, about)
    steps = trace(others, statement.versions, receipt["transitions"])
    check_erasures(statement, outcome, steps)
    check_subjects(statement, last_word(about), steps)
    kept = [open_note(note, keys) for note in pinned]
    for other in kept:
        _compare(head, other)
    return Verified(
        statement=statement,
        signers=(signer, head_signer),
        head=head,
        arrival=arrival,
        entries=len(quoted),
        steps=steps,
        weights_of=None if weights is None else _identify(weights, steps),
        log=None if log is None else _replay(log, keys, head, kept, statement, quoted),
        pinned=kept,
    )


def _open(content: bytes) -> Mapping[str, Any]:
    receipt = documents.parse(content)
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        raise NotProven(Reason.UNKNOWN_FORMAT, f"it does not say {FORMAT}")
    try:
        found = members(receipt, "receipt", "format", "envelope", "log", "transitions")
        items(found["transitions"], "transitions")
    except Malformed as error:
        raise NotProven(Reason.RECEIPT_MALFORMED, str(error)) from None
    return found


def _read_log(
    value: object, keys: Sequence[VerifyingKey]
) -> tuple[Checkpoint, VerifyingKey, Sequence[_Quoted]]:
    try:
        found = members(value, "log", "checkpoint", "entries")
        head, signer = open_signed(text(found["checkpoint"], "log.checkpoint"), keys)
        quoted = [_quoted(each, head) for each in items(found["entries"], "log.entries")]
    except Malformed as error:
        raise NotProven(Reason.RECEIPT_MALFORMED, str(error)) from None
    positions = [each.position for each in quoted]
    if positions != sorted(set(positions)):
        raise NotProven(Reason.RECEIPT_MALFORMED, "log.entries: not distinct and ascending")
    return head, signer, quoted


def _quoted(value: object, head: Checkpoint) -> _Quoted:
    found = members(value, "log.entry", "entry", "path", "position")
    position = whole(found["position"], "log.entry.position")
    entry = read_entry(text(found["entry"], "log.entry.entry"))
    path = [hash_(each, "log.entry.path") for each in items(found["path"], "log.entry.path")]
    if not verify_inclusion(entry.hash, position, head.size, path, head.root_hash):
        raise NotProven(Reason.NOT_IN_THE_LOG, f"the entry at position {position}")
    return _Quoted(position, entry)


def _compare(head: Checkpoint, pinned: Checkpoint) -> None:
    if pinned.origin != head.origin:
        raise NotProven(Reason.OTHER_LOG, "a pinned head of another log")
    if pinned.size == head.size and pinned.root_hash != head.root_hash:
        raise NotProven(
            Reason.LOG_FORKED, f"another log of this name was signed at size {head.size}"
        )


def _identify(weights: Path | BinaryIO, steps: Sequence[Step]) -> Step:
    found = _digest(weights)
    newest = {step.version.model: step for step in sorted(steps, key=lambda s: s.version.number)}
    for step in newest.values():
        if step.version.digest == found:
            return step
    for step in steps:
        for version in (step.version, step.parent):
            if version.digest == found:
                raise NotProven(
                    Reason.WEIGHTS_DIFFER, f"they are {version.label}, which holds samples still"
                )
    raise NotProven(Reason.WEIGHTS_DIFFER, "they are of no version that this receipt is about")


def _digest(weights: Path | BinaryIO) -> str:
    if isinstance(weights, Path):
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.file_digest(weights, "sha256").hexdigest()  # type: ignore[arg-type]


def _replay(
    log: Path | BinaryIO,
    keys: Sequence[VerifyingKey],
    head: Checkpoint,
    pinned: Sequence[Checkpoint],
    statement: Statement,
    quoted: Sequence[_Quoted],
) -> ReplayedLog:
    request = statement.request.id
    hidden: list[int] = []
    later: list[int] = []
    known = {each.position for each in quoted}

    def watch(position: int, entry: Entry) -> None:
        if entry.subject == request and position not in known:
            if position < head.size:
                hidden.append(position)
            elif entry.event.startswith(MOVED):
                later.append(position)

    # The same root at the head's size: each quoted entry stands in the log where it says.
    replayed = replay(log, keys, [head, *pinned], watch)
    if hidden:
        raise NotProven(
            Reason.ENTRIES_MISSING, f"the receipt does not quote the log's entry {hidden[0]}"
        )
    if later:
        raise NotProven(
            Reason.LOG_CONTRADICTS, f"the request moved on at entry {later[0]} of the log"
        )
    return replayed
