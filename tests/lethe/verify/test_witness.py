"""A witness that keeps one head notices every other history."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.verify import Checkpoint, NotProven, Reason, advance, open_note
from tests.lethe.verify import naive
from tests.lethe.verify.names import OTHER_KEY, TRUSTED
from tests.lethe.verify.story import Story, simple


def path(story: Story, first: int, second: int) -> list[str]:
    if first in (0, second):
        return []
    return [node.hex() for node in naive.consistency(first, story.leaves[:second])]


def pin(story: Story, size: int, minutes: float = 50) -> Checkpoint:
    return open_note(story.head(size, minutes), [TRUSTED])


def reason_of(pinned: Checkpoint, note: str, consistency: object) -> Reason:
    with pytest.raises(NotProven) as refused:
        advance(pinned, note, consistency, [TRUSTED])  # type: ignore[arg-type]
    return refused.value.reason


@settings(max_examples=30)
@given(st.integers(0, 6), st.integers(0, 6))
def test_a_log_that_grows_is_followed_and_one_that_shrinks_is_not(first: int, second: int) -> None:
    story = simple()[0]
    pinned, note = pin(story, first), story.head(second)
    if first <= second:
        head = advance(pinned, note, path(story, first, second), [TRUSTED])
        assert head == open_note(note, [TRUSTED])
    else:
        assert reason_of(pinned, note, path(story, second, first)) == Reason.LOG_ROLLED_BACK


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
def test_a_history_that_was_rewritten_is_noticed(first: int, second: int, changed: int) -> None:
    story = simple()[0]
    pinned = pin(story, min(first, second))
    fork = deepcopy(story)
    fork.entries[changed]["at"] = "2026-11-21T23:00:00+00:00"
    size = max(first, second)
    consistency = path(fork, pinned.size, size)
    if changed < pinned.size:
        assert reason_of(pinned, fork.head(size), consistency) == Reason.LOG_FORKED
        if pinned.size < size:
            honest = path(story, pinned.size, size)
            assert reason_of(pinned, fork.head(size), honest) == Reason.LOG_FORKED
    else:
        # Nothing that this witness saw was rewritten; a later head of the other history is a fork.
        taken = advance(pinned, fork.head(size), consistency, [TRUSTED])
        assert taken.size == size
        if changed < size:
            assert reason_of(taken, story.head(size), []) == Reason.LOG_FORKED


def test_the_first_head_is_taken_on_trust_but_not_without_a_signature() -> None:
    story = simple()[0]
    assert advance(None, story.head(4), [], [TRUSTED]).size == 4
    with pytest.raises(NotProven):
        advance(None, story.head(4, key=OTHER_KEY), [], [TRUSTED])


def test_the_newer_of_two_signatures_over_the_same_tree_is_kept() -> None:
    story = simple()[0]
    pinned = pin(story, 6, minutes=50)
    assert advance(pinned, story.head(6, minutes=40), [], [TRUSTED]) == pinned
    newer = story.head(6, minutes=60)
    assert advance(pinned, newer, [], [TRUSTED]) == open_note(newer, [TRUSTED])


@pytest.mark.parametrize("nonsense", [["zz"], ["00"], [1], [None], ["00" * 32], [b"00" * 32]])
def test_what_is_no_proof_of_growth_is_refused(nonsense: list[object]) -> None:
    story = simple()[0]
    assert reason_of(pin(story, 3), story.head(6), nonsense) == Reason.LOG_FORKED


def test_a_head_of_another_log_is_refused() -> None:
    story = simple()[0]
    assert reason_of(pin(story, 6), story.head(origin="lethe/another"), []) == Reason.OTHER_LOG
