"""Check the transparency log's proofs without trusting the service that made them.

The tree is that of RFC 9162, section 2: SHA-256, leaves and inner nodes hashed in domains apart.
Standard library only, so that an auditor can read and run this file by itself.
"""

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf, SHA-256(0x00 || entry) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, SHA-256(0x01 || left || right) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(entries: Iterable[bytes]) -> bytes:
    """Return the root over all entries, computed from nothing but the entries.

    Keeps the complete subtrees met so far, as one carries digits in binary addition.
    """
    subtrees: list[bytes | None] = []
    for entry in entries:
        carry = leaf_hash(entry)
        for level, subtree in enumerate(subtrees):
            if subtree is None:
                subtrees[level] = carry
                break
            carry = node_hash(subtree, carry)
            subtrees[level] = None
        else:
            subtrees.append(carry)
    root: bytes | None = None
    for subtree in subtrees:
        if subtree is not None:
            root = subtree if root is None else node_hash(subtree, root)
    return EMPTY_ROOT if root is None else root


def verify_inclusion(
    leaf: bytes, position: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether the path proves a leaf hash at its position (RFC 9162, 2.1.3.2)."""
    if not 0 <= position < size:
        return False
    index, last = position, size - 1
    result = leaf
    for sibling in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            result = node_hash(sibling, result)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and result == root


def verify_consistency(
    first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes
) -> bool:
    """Tell whether the second tree appends to the first and changes nothing (RFC 9162, 2.1.4.2)."""
    if not 0 <= first <= second:
        return False
    if first == second:
        return not path and first_root == second_root
    if first == 0:
        return not path and first_root == EMPTY_ROOT
    proof = list(path)
    if first & (first - 1) == 0:
        proof.insert(0, first_root)
    if not proof:
        return False
    index, last = first - 1, second - 1
    while index & 1:
        index >>= 1
        last >>= 1
    from_first = from_second = proof[0]
    for sibling in proof[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            from_first = node_hash(sibling, from_first)
            from_second = node_hash(sibling, from_second)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            from_second = node_hash(from_second, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and from_first == first_root and from_second == second_root
