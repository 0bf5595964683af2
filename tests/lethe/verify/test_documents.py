"""JSON from strangers: canonical to the byte, or refused without harm."""

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.verify import NotProven, Reason
from lethe.verify.documents import MOST_LEVELS, parse

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)


def reason_of(content: bytes) -> Reason:
    with pytest.raises(NotProven) as refused:
        parse(content)
    assert len(refused.value.detail) < 100
    return refused.value.reason


@settings(max_examples=100)
@given(JSON)
def test_canonical_json_is_read_as_it_is(value: Any) -> None:
    assert parse(rfc8785.dumps(value)) == value


@settings(max_examples=100)
@given(JSON.filter(lambda value: isinstance(value, dict | list) and value))
def test_no_other_spelling_of_the_same_is_read(value: Any) -> None:
    assert reason_of(json.dumps(value, indent=1).encode()) == Reason.NOT_CANONICAL
    assert reason_of(rfc8785.dumps(value) + b"\n") == Reason.NOT_CANONICAL


@pytest.mark.parametrize(
    "content",
    [b"1.0", b"1e2", b"-0", b"1e22", b'"\\u0041"', b'"\\/"', b'{"b":1,"a":2}'],
)
def test_another_spelling_of_a_value_is_refused(content: bytes) -> None:
    assert reason_of(content) == Reason.NOT_CANONICAL


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"{",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"9" * 309,
        b"9" * 5_000,
        b"-" + b"9" * 1_000_000,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b'{"a":1,"a":1}',
        b"[" * (MOST_LEVELS + 1) + b"]" * (MOST_LEVELS + 1),
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_json_cannot_carry_is_refused_and_harms_nobody(content: bytes) -> None:
    assert reason_of(content) == Reason.UNREADABLE


def test_large_numbers_are_the_doubles_that_canonical_json_writes() -> None:
    assert parse(b"100000000000000000000") == 1e20
    assert parse(b"9007199254740991") == 2**53 - 1
    assert reason_of(b"9007199254740993") == Reason.NOT_CANONICAL


def test_as_many_levels_as_are_allowed_are_read() -> None:
    assert parse(b"[" * (MOST_LEVELS - 1) + b"]" * (MOST_LEVELS - 1))
