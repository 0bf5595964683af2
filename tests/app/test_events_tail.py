"""The newest events in memory: nothing is left out, and what was forgotten is said to be."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import tail
from app.events.reading import Told
from app.events.tail import Tail

SUBJECT = uuid4()


def told(position: int) -> Told:
    return Told(position, "", "job.queued", SUBJECT, {}, None, None, SUBJECT)


# How many entries each look finds, and which of them are events.
LOOKS = st.lists(st.lists(st.booleans(), max_size=12), max_size=12)


@given(begin=st.integers(0, 50), looks=LOOKS, keep=st.integers(1, 20), part=st.integers(1, 9))
def test_it_has_all_from_a_position_on_or_says_that_it_does_not(
    begin: int, looks: list[list[bool]], keep: int, part: int
) -> None:
    newest = Tail(keep)
    newest.extend([], begin)
    size, all_told = begin, []
    for look in looks:
        new = [size + place for place, is_event in enumerate(look) if is_event]
        size += len(look)
        newest.extend([told(position) for position in new], size)
        all_told += new
    assert newest.size == size
    for asked in range(size + 2):
        expected = [each for each in all_told if each >= asked]
        found = walk(newest, asked, part)
        if found is None:
            # It forgot no more than it had to: half of what it may keep is there in any case.
            assert asked < begin or len(expected) > keep // 2
        else:
            assert found == expected
            assert asked >= begin or asked >= size


def walk(newest: Tail, asked: int, part: int) -> list[int] | None:
    """All that was told from a position on, in parts; None if it is not known."""
    found: list[int] = []
    position = asked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "PART", part)
        while (batch := newest.since(position)) is not None and batch.upto > position:
            assert len(batch.told) <= part
            found += [each.position for each in batch.told]
            position = batch.upto
    if batch is None:
        assert not found
        return None
    assert position == max(asked, newest.size or 0)
    return found


def test_nothing_is_known_before_the_first_look() -> None:
    newest = Tail(5)
    assert newest.size is None
    batch = newest.since(7)
    assert batch is not None
    assert (list(batch.told), batch.upto) == ([], 7)
