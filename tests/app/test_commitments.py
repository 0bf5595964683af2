"""What a version commits to, held against a tree that is written down naively."""

import hashlib
import json
from collections.abc import Set
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.commitments import Manifest, change, commit
from lethe.verify.commitment import EMPTY, sample_key, verify_transition
from lethe.verify.reasons import NotProven

MODEL = UUID("5f3b8c1e-6a49-4a0e-8a7c-0d4a4a4f6e11")
digests = st.sets(st.integers(0, 2**16 - 1).map(lambda n: n.to_bytes(32, "big")), max_size=24)


def naive(keys: Set[str], held: Set[str], prefix: str = "") -> bytes:
    """The tree as the page defines it; keys are 256 characters of 0 and 1."""
    if not keys:
        return bytes(32)
    if len(keys) == 1:
        (key,) = keys
        depth = len(prefix).to_bytes(2, "big")
        whole = b"\x00" + depth + int(key, 2).to_bytes(32, "big")
        return hashlib.sha256(whole).digest() if key in held else bytes(32)
    sides = [
        naive({key for key in keys if key[len(prefix)] == bit}, held, prefix + bit) for bit in "01"
    ]
    if not any(map(any, sides)):
        return bytes(32)
    return hashlib.sha256(b"\x01" + sides[0] + sides[1]).digest()


def bits(digest: bytes) -> str:
    key = hashlib.sha256(b"lethe sample\0" + MODEL.bytes + digest).digest()
    return format(int.from_bytes(key, "big"), "0256b")


def manifest(registered: Set[bytes], forgotten: Set[bytes]) -> Manifest:
    return Manifest(MODEL, sorted(registered), frozenset(forgotten & registered))


@given(digests, digests)
@settings(max_examples=80, deadline=None)
def test_the_root_is_that_of_the_tree_on_the_page(
    registered: set[bytes], forgotten: set[bytes]
) -> None:
    found = commit(manifest(registered, forgotten))
    held = {bits(digest) for digest in registered - forgotten}
    assert found.root == naive({bits(digest) for digest in registered}, held)
    assert found.retained == len(held)


@given(digests, digests, digests)
@settings(max_examples=80, deadline=None)
def test_a_change_is_proven_to_remove_exactly_what_goes(
    registered: set[bytes], forgotten: set[bytes], forget: set[bytes]
) -> None:
    before = manifest(registered, forgotten)
    made = change(before, forget)
    assert made.parent == commit(before)
    assert made.version == commit(manifest(registered, forgotten | forget))
    gone = (registered - forgotten) & forget
    assert made.removed == len(gone)
    proven = verify_transition(json.loads(made.proof), made.parent.root, made.version.root)
    assert proven == {sample_key(MODEL, digest) for digest in gone}


def test_a_change_is_not_proven_for_other_roots() -> None:
    rows = {number.to_bytes(32, "big") for number in range(9)}
    made = change(manifest(rows, set()), {(3).to_bytes(32, "big")})
    other = commit(manifest(rows, {(4).to_bytes(32, "big")}))
    proof = json.loads(made.proof)
    with pytest.raises(NotProven):
        verify_transition(proof, made.parent.root, other.root)
    with pytest.raises(NotProven):
        verify_transition(proof, other.root, made.version.root)


def test_equal_samples_of_two_models_have_keys_apart() -> None:
    digest = bytes(32)
    assert sample_key(MODEL, digest) != sample_key(uuid4(), digest)


def test_a_model_that_forgot_everything_commits_to_nothing() -> None:
    rows = {number.to_bytes(32, "big") for number in range(5)}
    assert commit(manifest(rows, rows)).root == EMPTY == bytes(32)


def test_a_proof_names_nobody_that_stays() -> None:
    rows = {hashlib.sha256(bytes([number])).digest() for number in range(200)}
    gone = set(sorted(rows)[:3])
    proof = change(manifest(rows, set()), gone).proof.decode()
    for digest in rows:
        assert digest.hex() not in proof
        key = sample_key(MODEL, digest).hex()
        assert (key in proof) == (digest in gone)
