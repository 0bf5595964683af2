"""Lines cut out of a stream, and answers kept for a client that does not read yet."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.deletions.bulk_lines import Cutter
from app.deletions.bulk_spool import IN_MEMORY_BYTES, Spool


@given(
    content=st.lists(st.sampled_from([b"a", b"b" * 9, b"c" * 10, b"d" * 11, b"\n", b"\n"])).map(
        b"".join
    ),
    cuts=st.lists(st.integers(0, 200)),
)
def test_lines_are_the_same_wherever_the_stream_is_cut(content: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    cutter = Cutter(10)
    found: list[bytes | None] = []
    for start, end in pairwise(places):
        found += cutter.feed(content[start:end])
    found += cutter.end()
    expected = [line[:-1] for line in re.findall(rb"[^\n]*\n", content)]
    rest = content[content.rfind(b"\n") + 1 :]
    expected += [rest] if rest else []
    assert found == [line if len(line) <= 10 else None for line in expected]


@given(steps=st.lists(st.integers(-200_000, 200_000), max_size=40))
def test_what_is_spooled_is_read_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    spool = Spool(tmp_path_factory.getbasetemp())
    source = bytes(range(256)) * (-(-sum(step for step in steps if step > 0) // 256))
    written = read = 0
    for step in steps:
        if step > 0:
            spool.write(source[written : written + step])
            written += step
        else:
            content = spool.read(-step)
            assert content == source[read : min(read - step, written)]
            read += len(content)
        assert spool.unread == written - read
    assert spool.read(written) == source[read:written]
    spool.close()


def test_a_spool_that_was_read_takes_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(b"x" * (2 * IN_MEMORY_BYTES))
    descriptor = spool._file.fileno()  # noqa: SLF001
    assert os.fstat(descriptor).st_size == 2 * IN_MEMORY_BYTES
    assert not list(tmp_path.iterdir())
    spool.read(2 * IN_MEMORY_BYTES)
    assert os.fstat(descriptor).st_size == 0
    spool.close()
