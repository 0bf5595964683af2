"""Proofs of removal against a naive sparse tree: the honest ones hold, and no changed one does."""

import base64
from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.verify import NotProven, Reason
from lethe.verify.commitment import (
    EMPTY,
    bit,
    leaf,
    node,
    sample_key,
    samples_commitment,
    verify_transition,
)
from tests.lethe.verify import naive
from tests.lethe.verify.names import MODEL

# Few values for each byte, and long common prefixes, so that keys meet deep in the tree.
KEYS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.tuples(st.integers(0, 5), st.sampled_from([1, 2, 128])).map(
        lambda place: bytes(place[0]) + bytes([place[1]]) + bytes(31 - place[0])
    ),
)


@st.composite
def removals(draw: st.DrawFn) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Draw the keys of a first version, those gone before, and those that go now."""
    keys = draw(st.lists(KEYS, min_size=1, max_size=7, unique=True))
    fates = draw(st.lists(st.sampled_from("rgn"), min_size=len(keys), max_size=len(keys)))
    gone = {key for key, fate in zip(keys, fates, strict=True) if fate == "g"}
    going = {key for key, fate in zip(keys, fates, strict=True) if fate == "n"}
    return set(keys), gone, going


def roots(keys: set[bytes], gone: set[bytes], going: set[bytes]) -> tuple[bytes, bytes]:
    return naive.sparse_root(keys, gone), naive.sparse_root(keys, gone | going)


def refused(proof: Any, before: bytes, after: bytes) -> bool:
    try:
        verify_transition(proof, before, after)
    except NotProven as error:
        return error.reason == Reason.COMMITMENT_CONTRADICTS
    return False


@settings(max_examples=200)
@given(removals())
def test_an_honest_proof_yields_exactly_what_was_removed(
    removal: tuple[set[bytes], set[bytes], set[bytes]],
) -> None:
    assert verify_transition(naive.transition(*removal), *roots(*removal)) == removal[2]


@settings(max_examples=200)
@given(removals(), st.data())
def test_no_other_change_of_the_tree_is_proven(
    removal: tuple[set[bytes], set[bytes], set[bytes]], data: st.DataObject
) -> None:
    keys, _, going = removal
    other_gone = data.draw(st.sets(st.sampled_from(sorted(keys))))
    other_going = data.draw(st.sets(st.sampled_from(sorted(keys)))) - other_gone
    other = (keys, other_gone, other_going)
    proof = naive.transition(*removal)
    if roots(*other) == roots(*removal):
        assert verify_transition(proof, *roots(*other)) == other_going == going
    else:
        assert refused(proof, *roots(*other))


@settings(max_examples=200)
@given(removals(), st.data())
def test_no_changed_proof_is_proven(
    removal: tuple[set[bytes], set[bytes], set[bytes]], data: st.DataObject
) -> None:
    honest = naive.transition(*removal)
    changed: Any = deepcopy(honest)
    siblings = bytearray(base64.b64decode(changed["siblings"]))
    removed = changed["removed"]
    kinds = ["more", "extra"] + ["bit", "less"] * bool(siblings)
    kinds += ["key", "depth", "drop", "twice"] * bool(removed)
    kinds += ["order"] * (len(removed) > 1)
    kind = data.draw(st.sampled_from(kinds))
    index = data.draw(st.integers(0, len(removed) - 1)) if removed else 0
    if kind == "bit":
        siblings[data.draw(st.integers(0, len(siblings) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "less":
        del siblings[:32]
    elif kind == "more":
        siblings += data.draw(st.sampled_from([EMPTY, bytes(31) + b"\x01"]))
    elif kind == "extra":
        key = data.draw(KEYS.filter(lambda key: key not in removal[2]))
        removed.append([key.hex(), data.draw(st.integers(0, 256))])
        removed.sort()
    elif kind == "key":
        key = bytearray.fromhex(removed[index][0])
        key[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
        removed[index][0] = key.hex()
    elif kind == "depth":
        removed[index][1] += data.draw(st.sampled_from([-1, 1]))
    elif kind == "drop":
        del removed[index]
    elif kind == "twice":
        removed.insert(index, removed[index])
    else:
        removed[0], removed[1] = removed[1], removed[0]
    changed["siblings"] = base64.b64encode(siblings).decode()
    assert refused(changed, *roots(*removal))


def test_what_was_not_there_before_is_not_removed() -> None:
    keys = {naive.sha256(bytes([n])) for n in range(5)}
    key, stranger = sorted(keys)[2], naive.sha256(b"a stranger")
    before = naive.sparse_root(keys, {key})
    again = naive.transition(keys, set(), {key})
    assert refused(again, before, before)  # it was gone already
    with_stranger = naive.transition(keys | {stranger}, set(), {stranger})
    assert refused(with_stranger, before, before)


@pytest.mark.parametrize(
    "proof",
    [
        None,
        [],
        {},
        {"removed": [], "siblings": "", "more": 1},
        {"removed": {}, "siblings": ""},
        {"removed": [], "siblings": []},
        {"removed": [], "siblings": "AB=="},
        {"removed": [], "siblings": "é"},
        {"removed": [], "siblings": ""},
        {"removed": [[1, 0]], "siblings": ""},
        {"removed": [["00" * 32, True]], "siblings": ""},
        {"removed": [["00" * 32, 0.0]], "siblings": ""},
        {"removed": [["00" * 32, -1]], "siblings": ""},
        {"removed": [["00" * 32, 257]], "siblings": ""},
        {"removed": [["00" * 32, 10**30]], "siblings": ""},
        {"removed": [["00" * 31, 0]], "siblings": ""},
        {"removed": [["AA" * 32, 0]], "siblings": ""},
        {"removed": [["00 " * 32, 0]], "siblings": ""},
        {"removed": [["00" * 32]], "siblings": ""},
        {"removed": ["00" * 32], "siblings": ""},
    ],
)
def test_what_is_no_proof_is_refused(proof: Any) -> None:
    assert refused(proof, EMPTY, EMPTY)


def test_two_keys_that_part_at_the_last_bit_are_followed_all_the_way() -> None:
    keys = {bytes(31) + b"\x00", bytes(31) + b"\x01"}
    proof = naive.transition(keys, set(), keys)
    assert proof["removed"] == [
        [(bytes(31) + b"\x00").hex(), 256],
        [(bytes(31) + b"\x01").hex(), 256],
    ]
    assert verify_transition(proof, naive.sparse_root(keys, set()), EMPTY) == keys


def test_the_hashes_are_those_of_the_page() -> None:
    key = bytes([0b10100000]) + bytes(31)
    assert [bit(key, depth) for depth in (0, 1, 2, 3, 255)] == [1, 0, 1, 0, 0]
    assert leaf(258, key) == naive.sha256(b"\x00\x01\x02", key)
    assert node(EMPTY, EMPTY) == EMPTY
    assert node(EMPTY, key) == naive.sha256(b"\x01", EMPTY, key)
    sample = naive.sha256(b"a sample")
    assert sample_key(MODEL, sample) == naive.sample_key(MODEL, sample)
    assert sample_key(MODEL, sample) != sample_key(UUID(int=1), sample)
    commitment = naive.sha256(b"lethe samples\x00", key, sample)
    assert samples_commitment(key, [sample]) == commitment
    for wrong in (sample[:31], sample + b"x"):
        with pytest.raises(ValueError, match="32 bytes"):
            sample_key(MODEL, wrong)
        with pytest.raises(ValueError, match="32 bytes"):
            samples_commitment(key, [wrong])
