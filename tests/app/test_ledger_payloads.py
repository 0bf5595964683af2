"""What the log hashes is canonical JSON, whichever way it was written."""

import string
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from app.audit.payloads import payload

SUBJECT = UUID("6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11")
LARGEST = 2**53 - 1
NAMES = st.text(string.ascii_lowercase + "_", min_size=1)
# All of Unicode but lone surrogates, which no encoding has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | TEXTS | st.just([])
NESTED = st.recursive(
    PLAIN | st.floats(allow_nan=False, allow_infinity=False),
    lambda of: st.lists(of) | st.dictionaries(TEXTS, of),
    max_leaves=8,
)


def oracle(facts: dict[str, object]) -> str:
    told = {"at": "now", "event": "a.b", "facts": facts, "subject": str(SUBJECT)}
    return rfc8785.dumps(told).decode()  # type: ignore[arg-type]  # what hypothesis makes is JSON


@given(st.dictionaries(NAMES, PLAIN))
def test_facts_that_are_plain_are_written_as_the_standard_has_it(facts: dict[str, object]) -> None:
    assert payload("a.b", SUBJECT, facts, "now") == oracle(facts)


@given(st.dictionaries(NAMES, NESTED))
def test_facts_that_are_not_are_written_so_too(facts: dict[str, object]) -> None:
    assert payload("a.b", SUBJECT, facts, "now") == oracle(facts)


@pytest.mark.parametrize("number", [LARGEST + 1, -LARGEST - 1])
def test_a_number_that_the_standard_does_not_know_is_refused(number: int) -> None:
    with pytest.raises(rfc8785.IntegerDomainError):
        payload("a.b", SUBJECT, {"number": number}, "now")
