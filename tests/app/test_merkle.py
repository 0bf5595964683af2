"""The tree against a naive one that follows the definition of RFC 9162, section 2.1."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lethe.verify
from app.audit import merkle
from lethe.verify import root_of, verify_consistency, verify_inclusion


def naive_leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def naive_root(entries: list[bytes]) -> bytes:
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return naive_leaf(entries[0])
    split = 1
    while split * 2 < len(entries):
        split *= 2
    left, right = naive_root(entries[:split]), naive_root(entries[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def naive_path(position: int, entries: list[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if position < split:
        return [*naive_path(position, entries[:split]), naive_root(entries[split:])]
    return [*naive_path(position - split, entries[split:]), naive_root(entries[:split])]


def grow(entries: list[bytes], cuts: list[int]) -> dict[merkle.Address, bytes]:
    nodes: dict[merkle.Address, bytes] = {}
    bounds = sorted({0, len(entries), *(cut % (len(entries) + 1) for cut in cuts)})
    for start, end in pairwise(bounds):
        edge = {address: nodes[address] for address in merkle.right_edge(start)}
        nodes.update(merkle.append(start, edge, map(naive_leaf, entries[start:end])).nodes)
    return nodes


entries_ = st.lists(st.binary(max_size=4), max_size=40)
cuts_ = st.lists(st.integers(0, 1_000), max_size=6)


# Roots over the first n of these entries, published with the Certificate Transparency code.
CT_ENTRIES = [
    bytes.fromhex(entry)
    for entry in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                  "606162636465666768696a6b6c6d6e6f"]
]  # fmt: skip
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    nodes = grow(CT_ENTRIES[:size], [3, 5])
    assert merkle.root(size, nodes.__getitem__).hex() == CT_ROOTS[size]
    assert root_of(CT_ENTRIES[:size]).hex() == CT_ROOTS[size]


@given(entries_, cuts_)
def test_roots_and_inclusion_paths_are_the_naive_trees(
    entries: list[bytes], cuts: list[int]
) -> None:
    nodes = grow(entries, cuts).__getitem__
    size = len(entries)
    root = naive_root(entries)
    assert merkle.root(size, nodes) == root == root_of(entries)
    for position, entry in enumerate(entries):
        path = merkle.inclusion_path(position, size, nodes)
        assert path == naive_path(position, entries)
        assert verify_inclusion(naive_leaf(entry), position, size, path, root)


@given(entries_, cuts_)
def test_any_two_sizes_are_proven_consistent(entries: list[bytes], cuts: list[int]) -> None:
    nodes = grow(entries, cuts).__getitem__
    size = len(entries)
    for first in range(size + 1):
        path = merkle.consistency_path(first, size, nodes)
        roots = naive_root(entries[:first]), naive_root(entries)
        assert verify_consistency(first, size, path, *roots)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20), st.data())
def test_no_altered_inclusion_proof_is_believed(entries: list[bytes], data: st.DataObject) -> None:
    size = len(entries)
    position = data.draw(st.integers(0, size - 1))
    leaf, root = naive_leaf(entries[position]), naive_root(entries)
    path = naive_path(position, entries)
    assert not verify_inclusion(naive_leaf(b"other"), position, size, path, root)
    assert not verify_inclusion(leaf, position, size, [*path, root], root)
    assert not verify_inclusion(leaf, size, size, path, root)
    assert not verify_inclusion(leaf, -1, size, path, root)
    for index in range(len(path)):
        assert not verify_inclusion(leaf, position, size, path[:index] + path[index + 1 :], root)
        broken = [*path]
        broken[index] = hashlib.sha256(broken[index]).digest()
        assert not verify_inclusion(leaf, position, size, broken, root)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20), st.data())
def test_no_rewritten_history_is_proven_consistent(
    entries: list[bytes], data: st.DataObject
) -> None:
    size = len(entries)
    first = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, first - 1))
    rewritten = [*entries]
    rewritten[changed] += b"!"
    nodes = grow(rewritten, []).__getitem__
    path = merkle.consistency_path(first, size, nodes)
    old, new = naive_root(entries[:first]), naive_root(rewritten)
    assert not verify_consistency(first, size, path, old, new)
    assert not verify_consistency(first, size, [*path, new], old, new)
    assert not verify_consistency(size + 1, size, path, old, new)


def test_the_verifier_runs_with_the_standard_library_alone(tmp_path: Path) -> None:
    source = Path(lethe.verify.merkle.__file__)
    (tmp_path / "verify.py").write_text(source.read_text())
    subprocess.run(
        [sys.executable, "-I", "-S", "verify.py"], cwd=tmp_path, check=True, env={**os.environ}
    )
