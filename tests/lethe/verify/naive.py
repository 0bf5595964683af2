"""The formats' mathematics once more, slow, from their definitions: what the verifier must match.

Nothing of ``lethe`` is used here.
"""

import base64
import hashlib
import struct
from collections.abc import Set
from functools import cache
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return sha256(b"\x00", leaves[0])
    split = _split(len(leaves))
    return sha256(b"\x01", root(leaves[:split]), root(leaves[split:]))


def inclusion(position: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162, 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if position < split:
        return [*inclusion(position, leaves[:split]), root(leaves[split:])]
    return [*inclusion(position - split, leaves[split:]), root(leaves[:split])]


def consistency(first: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """PROOF and SUBPROOF of RFC 9162, 2.1.4.1, for 0 < first."""
    if first == len(leaves):
        return [] if whole else [root(leaves)]
    split = _split(len(leaves))
    if first <= split:
        return [*consistency(first, leaves[:split], whole), root(leaves[split:])]
    return [*consistency(first - split, leaves[split:], False), root(leaves[:split])]


def _split(width: int) -> int:
    split = 1
    while split * 2 < width:
        split *= 2
    return split


def sample_key(model: UUID, sample: bytes) -> bytes:
    return sha256(b"lethe sample", b"\x00", model.bytes, sample)


def sparse_root(keys: Set[bytes], gone: Set[bytes], depth: int = 0) -> bytes:
    """The root over the first version's keys, some of which are gone."""
    if not keys:
        return bytes(32)
    if len(keys) == 1:
        (key,) = keys
        return bytes(32) if key in gone else sha256(b"\x00", struct.pack(">H", depth), key)
    sides = [sparse_root(side, gone, depth + 1) for side in _sides(keys, depth)]
    return bytes(32) if sides == [bytes(32), bytes(32)] else sha256(b"\x01", *sides)


def transition(keys: Set[bytes], gone: Set[bytes], going: Set[bytes]) -> dict[str, object]:
    """The proof that the root without ``gone`` becomes the one without ``going``, too."""
    removed, siblings = _walk(keys, gone, going, 0)
    return {
        "removed": [[key.hex(), depth] for key, depth in sorted(removed)],
        "siblings": base64.b64encode(b"".join(siblings)).decode(),
    }


def _walk(
    keys: Set[bytes], gone: Set[bytes], going: Set[bytes], depth: int
) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    if not keys & going:
        return [], [sparse_root(keys, gone, depth)]
    if len(keys) == 1:
        return [(key, depth) for key in keys], []
    (left, left_siblings), (right, right_siblings) = (
        _walk(side, gone, going, depth + 1) for side in _sides(keys, depth)
    )
    return left + right, left_siblings + right_siblings


def _sides(keys: Set[bytes], depth: int) -> list[Set[bytes]]:
    return [{key for key in keys if _bits(key)[depth] == side} for side in "01"]


@cache
def _bits(key: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in key)


def pae(kind: bytes, body: bytes) -> bytes:
    """DSSE's encoding, from its definition: lengths in ASCII decimals, joined by spaces."""
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body])


def note(origin: str, size: int, root_hash: bytes, at: str, key: Ed25519PrivateKey) -> str:
    """A tree head as a signed note."""
    body = f"{origin}\n{size}\n{base64.b64encode(root_hash).decode()}\ntime {at}\n"
    public = key.public_key().public_bytes_raw()
    hint = sha256(origin.encode(), b"\n", b"\x01", public)[:4]
    signature = base64.b64encode(hint + key.sign(body.encode())).decode()
    return f"{body}\n— {origin} {signature}\n"
