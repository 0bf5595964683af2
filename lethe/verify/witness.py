"""Follow a log from outside: keep its newest head, and take no other that contradicts it."""

from collections.abc import Sequence

from lethe.verify.keys import VerifyingKey
from lethe.verify.merkle import verify_consistency
from lethe.verify.note import Checkpoint, open_note
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.spelling import parse_hash


def advance(
    pinned: Checkpoint | None,
    note: str,
    consistency: Sequence[str],
    keys: Sequence[VerifyingKey],
) -> Checkpoint:
    """Return the head to keep from now on; both notes together prove what is refused as a fork.

    Args:
        pinned: the head kept so far; None takes the first one on trust.
        note: the new head.
        consistency: hashes in hex that lead from the one tree to the other (RFC 9162, 2.1.4).
        keys: those that may have signed it.

    Raises:
        NotProven: the head is not signed so, of another log, older, or of a log that was rewritten.

    """
    head = open_note(note, keys)
    if pinned is None:
        return head
    if head.origin != pinned.origin:
        raise NotProven(Reason.OTHER_LOG, "a head of another log")
    if head.size < pinned.size:
        raise NotProven(
            Reason.LOG_ROLLED_BACK, f"a head of {head.size} entries after one of {pinned.size}"
        )
    try:
        path = [parse_hash(each) for each in consistency]
    except (TypeError, ValueError):
        raise NotProven(Reason.LOG_FORKED, "no proof that the log only grew") from None
    if not verify_consistency(pinned.size, head.size, path, pinned.root_hash, head.root_hash):
        raise NotProven(
            Reason.LOG_FORKED,
            f"the log of {head.size} entries is not the one of {pinned.size} with more appended",
        )
    return head if head.signed_at > pinned.signed_at or head.size > pinned.size else pinned
