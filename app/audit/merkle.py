"""The Merkle tree of RFC 9162 over stored complete subtrees: roots and proofs in O(log n).

A node (level, index) is the hash of the 2^level leaves from index·2^level on. Such nodes never
change once all their leaves are there, so that they are stored; everything else is computed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lethe.verify import EMPTY_ROOT, node_hash

Address = tuple[int, int]
Nodes = Callable[[Address], bytes]
PathFunction = Callable[[Nodes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Growth:
    """What appending leaves adds: the new complete subtrees, by address."""

    size: int
    nodes: Mapping[Address, bytes]


def _subtree(start: int, end: int, nodes: Nodes) -> bytes:
    # MTH(D[start:end]) of RFC 9162, 2.1.1; start is a multiple of every power of two used here.
    width = end - start
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return nodes((level, start >> level))
    split = 1 << ((width - 1).bit_length() - 1)
    return node_hash(_subtree(start, start + split, nodes), _subtree(start + split, end, nodes))


def root(size: int, nodes: Nodes) -> bytes:
    """Return the root of the tree over the first ``size`` leaves."""
    return _subtree(0, size, nodes) if size else EMPTY_ROOT


def inclusion_path(position: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return the siblings from the leaf to the root, PATH(m, D_n) of RFC 9162, 2.1.3.1."""
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if position < split:
            path.append(_subtree(split, end, nodes))
            end = split
        else:
            path.append(_subtree(start, split, nodes))
            start = split
    return path[::-1]


def consistency_path(first: int, second: int, nodes: Nodes) -> list[bytes]:
    """Return PROOF(m, D_n) of RFC 9162, 2.1.4.1: the second tree appends to the first."""
    if first in (0, second):
        return []
    start, end = 0, second
    path: list[bytes] = []
    whole = True  # whether the first tree's root over [start, first) is known to the verifier
    while first != end:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if first <= split:
            path.append(_subtree(split, end, nodes))
            end = split
        else:
            path.append(_subtree(start, split, nodes))
            start = split
            whole = False
    if not whole:
        path.append(_subtree(start, end, nodes))
    return path[::-1]


def right_edge(size: int) -> list[Address]:
    """Return the largest complete subtrees that make up a tree: all that appending needs."""
    edge: list[Address] = []
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            edge.append((level, start >> level))
            start += 1 << level
    return edge


def append(size: int, edge: Mapping[Address, bytes], leaves: Iterator[bytes]) -> Growth:
    """Return what the leaf hashes add to a tree of ``size`` leaves with this right edge."""
    known = dict(edge)
    added: dict[Address, bytes] = {}
    for leaf in leaves:
        level, index, value = 0, size, leaf
        added[level, index] = known[level, index] = value
        while index & 1:
            value = node_hash(known[level, index - 1], value)
            level, index = level + 1, index >> 1
            added[level, index] = known[level, index] = value
        size += 1
    return Growth(size, added)
