"""Proofs of the log's tree against a naive one: the honest ones hold, and no changed one does."""

import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.verify import leaf_hash, merkle, root_of, verify_consistency, verify_inclusion
from lethe.verify.log import Frontier
from tests.lethe.verify import naive

LOGS = st.lists(st.binary(max_size=3), min_size=1, max_size=24, unique=True)


@settings(max_examples=60)
@given(LOGS)
def test_the_root_grows_with_each_entry_as_its_definition_says(entries: list[bytes]) -> None:
    frontier = Frontier()
    for size, entry in enumerate(entries):
        assert (frontier.size, frontier.root()) == (size, naive.root(entries[:size]))
        frontier.add(leaf_hash(entry))
    assert frontier.root() == root_of(entries) == naive.root(entries)


@settings(max_examples=60)
@given(LOGS, st.data())
def test_an_entry_is_proven_at_its_position_and_at_no_other(
    entries: list[bytes], data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(entries) - 1))
    path, root = naive.inclusion(position, entries), naive.root(entries)
    leaf, size = leaf_hash(entries[position]), len(entries)
    assert verify_inclusion(leaf, position, size, path, root)
    other = data.draw(st.integers(-1, len(entries)).filter(lambda p: p != position))
    assert not verify_inclusion(leaf, other, size, path, root)
    assert not verify_inclusion(leaf_hash(b"another"), position, size, path, root)
    assert not verify_inclusion(leaf, position, size, [*path, root], root)
    assert not verify_inclusion(leaf, position, size, path, leaf_hash(b"another"))
    if path:
        index = data.draw(st.integers(0, len(path) - 1))
        assert not verify_inclusion(leaf, position, size, path[:-1], root)
        changed = [*path[:index], leaf_hash(path[index]), *path[index + 1 :]]
        assert not verify_inclusion(leaf, position, size, changed, root)


@settings(max_examples=60)
@given(LOGS, st.data())
def test_a_log_that_only_grew_is_proven_and_a_rewritten_one_is_not(
    entries: list[bytes], data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, len(entries)))
    path = naive.consistency(first, entries)
    roots = naive.root(entries[:first]), naive.root(entries)
    assert verify_consistency(first, len(entries), path, *roots)
    rewritten = [b"rewritten", *entries[1:]]
    other = naive.root(rewritten[:first]), naive.root(rewritten)
    assert not verify_consistency(first, len(entries), path, roots[0], other[1])
    assert not verify_consistency(first, len(entries), path, other[0], roots[1])
    if first < len(entries):
        assert not verify_consistency(
            first, len(entries), naive.consistency(first, rewritten), roots[0], other[1]
        )
        assert not verify_consistency(first, len(entries), path[:-1], *roots)
        assert not verify_consistency(len(entries), first, path, *reversed(roots))
    assert not verify_consistency(first, len(entries), [*path, roots[0]], *roots)


def test_an_auditor_can_run_the_file_of_the_proofs_by_itself(tmp_path: Path) -> None:
    shutil.copy(merkle.__file__, tmp_path / "alone.py")
    code = (
        "import sys; sys.path.append('.'); import alone; print(alone.root_of([b'1', b'2']).hex())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == naive.root([b"1", b"2"]).hex()
