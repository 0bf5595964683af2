"""Say in plain words what was proven and what was not, and never more than was checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lethe.verify.entries import CURRENT, PURGED, WITHDRAWN
from lethe.verify.keys import VerifyingKey
from lethe.verify.lineage import Step
from lethe.verify.log import ReplayedLog
from lethe.verify.receipt import Verified
from lethe.verify.spelling import format_time

_STANDS = {CURRENT: "current", WITHDRAWN: "withdrawn", PURGED: "purged"}
_COMPARE = (
    "That everybody is shown the same log: a service could keep two. Compare heads with those that "
    "a witness keeps (--pin)."
)


@dataclass(frozen=True, slots=True)
class Report:
    """Two lists of sentences for people, and the same as facts for programs."""

    proven: Sequence[str]
    not_proven: Sequence[str]
    facts: Mapping[str, Any]


def describe_receipt(verified: Verified) -> Report:
    """Report on a receipt that holds."""
    return Report(
        proven=[
            *_signed(verified),
            *_request(verified),
            *(line for step in verified.steps for line in _version(verified, step)),
            *_beside(verified),
        ],
        not_proven=[
            *_unchecked(verified),
            *_beyond(verified),
            *(line for step in verified.steps for line in _limits(step)),
            *_life(verified.signers),
            *(f"In the receipt's own words: {plain(each)}" for each in _own(verified)),
        ],
        facts=_facts(verified),
    )


def describe_log(log: ReplayedLog, pinned: Sequence[str]) -> Report:
    """Report on a log that holds; ``pinned`` are the notes that it was held against."""
    current = sum(status == CURRENT for status in log.status.values())
    return Report(
        proven=[
            *_replayed(log),
            f"Every model's versions are one chain without forks: "
            f"{_count(len(log.status), 'version')}, {current} of them current.",
            *([f"It contains {_count(len(pinned), 'pinned head')}."] if pinned else []),
        ],
        not_proven=[
            "That what its entries say is true: they are the service's words, kept unchanged.",
            *([] if pinned else [_COMPARE]),
        ],
        facts={"log": _log_facts(log), "pinned": len(pinned)},
    )


def plain(text: str, most: int = 300) -> str:
    """Return others' words without what a terminal would obey, and not too many."""
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def _signed(verified: Verified) -> Iterable[str]:
    signer, head_signer = verified.signers
    head = verified.head
    yield f"The receipt is signed with key {signer.id}."
    yield (
        f"Its {_count(verified.entries, 'quoted entry', 'quoted entries')} stand in the log "
        f"{head.origin}, under its head of size {head.size} signed with key {head_signer.id}."
    )


def _request(verified: Verified) -> Iterable[str]:
    request = verified.statement.request
    yield (
        f"By this log, request {request.id} ({plain(request.regulation)}) came on "
        f"{format_time(request.received_at)} and was {plain(request.status)} on "
        f"{format_time(request.finished_at)}."
    )
    if request.due_at is not None and verified.arrival.knows_due_at:
        kept = "kept" if request.finished_at <= request.due_at else "missed"
        yield f"By this log, its deadline, {format_time(request.due_at)}, was {kept}."
    for decision in request.decisions:
        why = "" if decision.reason is None else f" ({plain(decision.reason)})"
        set_ = "" if decision.due_at is None else f"; deadline: {format_time(decision.due_at)}"
        yield (
            f"By this log, a decision on {format_time(decision.at)}: "
            f"{plain(decision.action)}{why}{set_}."
        )
    if request.salt is not None:
        yield (
            f"When it came, the log committed to these {_samples(len(request.samples))}, "
            "by their pseudonyms."
        )


def _version(verified: Verified, step: Step) -> Iterable[str]:
    version = step.version
    yield (
        f"The weights of {_label(step)} have the digest sha256:{version.digest}; they come from "
        f"version {step.parent.number}, sha256:{step.parent.digest}."
    )
    yield (
        f"It commits to retaining {_samples(step.retained)}: those of version "
        f"{step.parent.number} without {len(step.removed)}, among these "
        f"{len(_forgotten(verified, step))} of the request's "
        f"{len(verified.statement.request.samples)}."
    )
    yield (
        f"By this log, its verdict is {version.verdict}, its guarantee {version.guarantee}, "
        f"its method {plain(version.method or 'not named')}."
    )


def _beside(verified: Verified) -> Iterable[str]:
    if verified.weights_of is not None:
        yield f"The weights given are those of {_label(verified.weights_of)}."
    log = verified.log
    if log is not None:
        yield from _replayed(log)
        yield (
            "It contains the receipt's head, every entry about the request that came before it is "
            "quoted, and no later one changes the request's status."
        )
        for step in verified.steps:
            stands = _STANDS[log.status[step.version.id]]
            yield f"At its end, {_label(step)} is {stands}, in a chain back to version 1."
    if log is not None and verified.pinned:
        yield f"The log contains {_count(len(verified.pinned), 'pinned head')}."
    elif any(head.size == verified.head.size for head in verified.pinned):
        yield "A pinned head is the receipt's head."


def _replayed(log: ReplayedLog) -> Iterable[str]:
    yield (
        f"The log {log.origin} of size {log.size} fits its {_count(log.heads, 'signed head')}; "
        f"the last one says {format_time(log.last.signed_at)}."
    )


def _unchecked(verified: Verified) -> Iterable[str]:
    if verified.steps and verified.weights_of is None:
        yield "Not checked: that the weights you serve are these (--weights)."
    if verified.log is None:
        yield (
            "Not checked: that no later entry changes the request's status, that no entry about it "
            "is left out, and where the versions stand now (--log)."
        )
    same = any(head.size == verified.head.size for head in verified.pinned)
    if not (same or (verified.log is not None and verified.pinned)):
        yield _COMPARE


def _beyond(verified: Verified) -> Iterable[str]:
    request = verified.statement.request
    yield "Whose the pseudonyms are: only the service's key relates them to sample IDs."
    yield "When it was signed: the times are the service's own."
    if request.salt is None:
        yield "That the request named these samples: the log has no commitment to them."
    if request.due_at is not None and not verified.arrival.knows_due_at:
        yield f"Its deadline, {format_time(request.due_at)}: the log does not have it."
    found = {each.sample for erasure in verified.statement.erasures for each in erasure.forgotten}
    missing = len(request.samples) - len(found)
    if missing:
        yield f"That {_samples(missing)} of the request were in no model: it is the service's word."
    for erasure in verified.statement.erasures:
        if erasure.status != "completed":
            yield f"That {plain(erasure.name)} forgot anything: that was {plain(erasure.status)}."


def _limits(step: Step) -> Iterable[str]:
    if step.version.guarantee == "exact":
        yield (
            f"That {_label(step)} was retrained without the samples, as an exact guarantee says: "
            "a repetition of its job would show it."
        )
    else:
        yield (
            f"That no influence of the samples is left in {_label(step)}: its guarantee is "
            "approximate, which proves no erasure."
        )
    if step.version.verdict == "inconclusive":
        yield (
            f"That the tests of {_label(step)} would have found what is left: its verdict is "
            "inconclusive."
        )
    if step.parent.commitment is None:
        yield f"What version {step.parent.number} retained: it is from before commitments."


def _life(signers: Sequence[VerifyingKey]) -> Iterable[str]:
    for key in {key.id: key for key in signers}.values():
        if key.introduced_at is None and key.retired_at is None:
            yield f"When key {key.id} was in use: the key as given does not say."


def _own(verified: Verified) -> Iterable[str]:
    return verified.statement.not_shown


def _facts(verified: Verified) -> dict[str, Any]:
    statement, head = verified.statement, verified.head
    request = statement.request
    return {
        "request": {
            "id": str(request.id),
            "status": request.status,
            "regulation": request.regulation,
            "received_at": format_time(request.received_at),
            "due_at": None if request.due_at is None else format_time(request.due_at),
            "finished_at": format_time(request.finished_at),
            "decisions": [
                {
                    "action": decision.action,
                    "at": format_time(decision.at),
                    "reason": decision.reason,
                    "due_at": None if decision.due_at is None else format_time(decision.due_at),
                }
                for decision in request.decisions
            ],
            "samples": [sample.hex() for sample in request.samples],
        },
        "versions": [
            {
                "model": str(step.version.model),
                "name": step.version.model_name,
                "number": step.version.number,
                "digest": f"sha256:{step.version.digest}",
                "guarantee": step.version.guarantee,
                "verdict": step.version.verdict,
                "forgot": [sample.hex() for sample in _forgotten(verified, step)],
                "is_the_weights": step is verified.weights_of,
            }
            for step in verified.steps
        ],
        "issued_at": format_time(statement.issued_at),
        "head": {
            "origin": head.origin,
            "size": head.size,
            "root": head.root_hash.hex(),
            "signed_at": format_time(head.signed_at),
        },
        "log": None if verified.log is None else _log_facts(verified.log),
        "keys": [key.id for key in verified.signers],
    }


def _log_facts(log: ReplayedLog) -> dict[str, Any]:
    return {
        "origin": log.origin,
        "size": log.size,
        "heads": log.heads,
        "root": log.last.root_hash.hex(),
        "signed_at": format_time(log.last.signed_at),
    }


def _forgotten(verified: Verified, step: Step) -> list[bytes]:
    return [
        each.sample
        for erasure in verified.statement.erasures
        if erasure.model == step.version.model
        for each in erasure.forgotten
        if each.version == step.version.number
    ]


def _label(step: Step) -> str:
    return plain(step.version.label)


def _samples(count: int) -> str:
    return _count(count, "sample")


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
