"""What a version commits to: a sparse Merkle tree over the samples that it retains.

The tree keeps the shape that it had in the model's first version. What is removed leaves an empty
place, so that removing a sample changes no node but those above it.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

from lethe.verify.reasons import NotProven, Reason
from lethe.verify.spelling import parse_base64, parse_hash

EMPTY = bytes(32)
DEEPEST = 256

_Roots = tuple[bytes, bytes]  # before, after


def sample_key(model_id: UUID, digest: bytes) -> bytes:
    """Return a sample's key in the tree of one model; ``digest`` is the keyed one, 32 bytes."""
    if len(digest) != 32:
        raise ValueError("a sample's keyed digest has 32 bytes")
    return hashlib.sha256(b"lethe sample\x00" + model_id.bytes + digest).digest()


def samples_commitment(salt: bytes, samples: Sequence[bytes]) -> bytes:
    """Return what the log says of a request's samples: a salted hash over their digests, ascending.

    Salt and digests have 32 bytes each.
    """
    if any(len(part) != 32 for part in (salt, *samples)):
        raise ValueError("a salt and keyed digests have 32 bytes each")
    return hashlib.sha256(b"lethe samples\x00" + salt + b"".join(samples)).digest()


def leaf(depth: int, key: bytes) -> bytes:
    """Return SHA-256(0x00 || depth || key), a subtree that began with this key alone."""
    return hashlib.sha256(b"\x00" + depth.to_bytes(2, "big") + key).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right), or the empty subtree if both are empty."""
    if left == right == EMPTY:
        return EMPTY
    return hashlib.sha256(b"\x01" + left + right).digest()


def bit(key: bytes, depth: int) -> int:
    """Return the bit that chooses the side below a depth; bit 0 is the first one."""
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def verify_transition(proof: Mapping[str, Any], before: bytes, after: bytes) -> frozenset[bytes]:
    """Return the keys without which the one root is the other, and nothing else changed.

    Raises:
        NotProven: the proof is malformed, or leads to other roots.

    """
    keys, depths, siblings = _parts(proof)
    computed = _walk(keys, depths, siblings)
    if computed[0] != before:
        raise _refused("the keys are not all in the tree before")
    if computed[1] != after:
        raise _refused("the tree after is not the one before without these keys")
    return frozenset(keys)


def _walk(keys: Sequence[bytes], depths: Sequence[int], siblings: bytes) -> _Roots:
    # With stacks of its own: a proof chooses how deep it goes.
    pending: list[tuple[int, int, int] | None] = [(0, len(keys), 0)]  # None joins two subtrees
    done: list[_Roots] = []
    taken = 0
    while pending:
        step = pending.pop()
        if step is None:
            right, left = done.pop(), done.pop()
            done.append((node(left[0], right[0]), node(left[1], right[1])))
            continue
        start, end, depth = step
        if start == end:
            sibling = siblings[taken : taken + 32]
            taken += 32
            if len(sibling) != 32:
                raise _refused("siblings are missing")
            done.append((sibling, sibling))
        elif end - start == 1 and depths[start] <= depth:
            if depths[start] < depth:
                raise _refused("a key lies at another depth than it says")
            done.append((leaf(depth, keys[start]), EMPTY))
        else:
            # Keys of one subtree are in order by their next bit.
            middle = bisect_left(keys, 1, start, end, key=lambda key: bit(key, depth))
            pending += [None, (middle, end, depth + 1), (start, middle, depth + 1)]
    if taken != len(siblings):
        raise _refused("siblings are left over")
    return done[0]


def _parts(proof: Mapping[str, Any]) -> tuple[list[bytes], list[int], bytes]:
    if not isinstance(proof, Mapping) or proof.keys() != {"removed", "siblings"}:
        raise _refused("the proof has not exactly the members removed and siblings")
    removed, encoded = proof["removed"], proof["siblings"]
    if not isinstance(removed, list) or not isinstance(encoded, str):
        raise _refused("the proof's members are no list and no base64")
    pairs = [_pair(each) for each in removed]
    keys = [key for key, _ in pairs]
    if any(one >= other for one, other in pairwise(keys)):
        raise _refused("the removed keys are not distinct and ascending")
    try:
        siblings = parse_base64(encoded)
    except ValueError:
        raise _refused("the siblings are no base64") from None
    return keys, [depth for _, depth in pairs], siblings


def _pair(value: object) -> tuple[bytes, int]:
    match value:
        case [str(key), int(depth)] if not isinstance(depth, bool) and 0 <= depth <= DEEPEST:
            try:
                return parse_hash(key), depth
            except ValueError:
                pass
    raise _refused("a removed key is no key and a depth")


def _refused(detail: str) -> NotProven:
    return NotProven(Reason.COMMITMENT_CONTRADICTS, f"transition: {detail}")
