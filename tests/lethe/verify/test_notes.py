"""Tree heads as signed notes: one spelling of each, and only by a key that may."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.verify import Checkpoint, NotProven, Reason, VerifyingKey, open_note
from lethe.verify.note import sign_note
from tests.lethe.verify import naive
from tests.lethe.verify.names import KEY, ORIGIN, OTHER_KEY, START, TRUSTED, utc

ROOT = bytes(range(32))
HONEST = naive.note(ORIGIN, 7, ROOT, utc(0), KEY)


def resigned(old: str, new: str) -> str:
    """Return the honest note with another body, signed by the log's own key."""
    body = HONEST.split("\n\n")[0].replace(old, new, 1) + "\n"
    hint = naive.sha256(ORIGIN.encode(), b"\n\x01", KEY.public_key().public_bytes_raw())[:4]
    signature = base64.b64encode(hint + KEY.sign(body.encode())).decode()
    return f"{body}\n— {ORIGIN} {signature}\n"


def reason_of(note: str, *keys: VerifyingKey) -> Reason:
    with pytest.raises(NotProven) as refused:
        open_note(note, keys or [TRUSTED])
    return refused.value.reason


def test_a_note_says_what_was_signed() -> None:
    assert open_note(HONEST, [TRUSTED]) == Checkpoint(ORIGIN, 7, ROOT, START)
    assert resigned("", "") == HONEST


@settings(max_examples=30)
@given(
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_what_is_signed_is_the_note_of_the_page(size: int, root: bytes, at: datetime) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root, at)
    written = at.isoformat().replace("+00:00", "Z")
    note = sign_note(checkpoint, KEY)
    assert note == naive.note(ORIGIN, size, root, written, KEY)
    assert open_note(note, [VerifyingKey(KEY.public_key())]) == checkpoint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n+7\n"),
        ("\n7\n", "\n7 \n"),
        ("\n7\n", "\n٧\n"),
        ("\n7\n", f"\n{2**63}\n"),
        ("\n7\n", "\n0\n"),  # the empty log has another root
        ("time ", ""),
        ("time ", "Time "),
        ("Z", "+00:00"),
        ("Z", ".1234567Z"),
        ("2026-11-21", "2026-11-31"),
        ("8=", "9="),  # the same bytes, spelt otherwise
        ("8=", "8"),
        ("8=", "8=\nanother extension"),
        ("\n7\n", "\r\n7\n"),
    ],
)
def test_a_note_of_another_shape_is_refused_though_it_is_signed(old: str, new: str) -> None:
    note = resigned(old, new)
    assert note != HONEST
    assert reason_of(note) == Reason.HEAD_MALFORMED


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        HONEST.replace("\n", "\r\n"),
        HONEST[:-1],
        HONEST + "\n",
        HONEST + HONEST.split("\n\n")[1],  # signed twice
        HONEST.replace("— ", "- "),
        HONEST.replace(f"— {ORIGIN}", "— lethe/another"),
        HONEST.replace("=\n", "\n"),
        HONEST.replace("\n7\n", "\n7" * 2000 + "\n"),
    ],
)
def test_a_note_that_is_not_exactly_one_signature_is_refused(note: str) -> None:
    assert reason_of(note) == Reason.HEAD_MALFORMED


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint("a log", 7, ROOT, START),
        Checkpoint("a+log", 7, ROOT, START),
        Checkpoint("log\n8", 7, ROOT, START),
        Checkpoint("", 7, ROOT, START),
        Checkpoint(ORIGIN, -1, ROOT, START),
        Checkpoint(ORIGIN, 7, ROOT[:31], START),
        Checkpoint(ORIGIN, 0, ROOT, START),
        Checkpoint(ORIGIN, 7, ROOT, START.replace(tzinfo=None)),
    ],
)
def test_nothing_is_signed_that_would_be_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"tree head|time zone"):
        sign_note(checkpoint, KEY)


def test_each_bit_of_the_signature_counts() -> None:
    signature = base64.b64decode(HONEST.split(" ")[-1])
    for index in range(4, len(signature)):
        broken = bytearray(signature)
        broken[index] ^= 1
        note = HONEST.replace(
            base64.b64encode(signature).decode(), base64.b64encode(broken).decode()
        )
        assert reason_of(note) == Reason.HEAD_SIGNATURE


def test_another_body_is_not_signed() -> None:
    assert reason_of(HONEST.replace("\n7\n", "\n8\n")) == Reason.HEAD_SIGNATURE


def test_keys_have_a_purpose_and_a_life() -> None:
    public = KEY.public_key()
    later, earlier = START + timedelta(seconds=1), START - timedelta(seconds=1)
    assert reason_of(HONEST, VerifyingKey(OTHER_KEY.public_key(), "log")) == Reason.UNKNOWN_KEY
    assert reason_of(HONEST, VerifyingKey(public, "weights")) == Reason.WRONG_KEY_PURPOSE
    assert reason_of(HONEST, VerifyingKey(public, "log", later)) == Reason.KEY_NOT_YET_VALID
    assert reason_of(HONEST, VerifyingKey(public, "log", None, earlier)) == Reason.KEY_EXPIRED
    weights_key = VerifyingKey(generate_private_key(SECP256R1()).public_key(), "weights")
    assert reason_of(HONEST, weights_key) == Reason.UNKNOWN_KEY
    assert open_note(HONEST, [weights_key, VerifyingKey(public, None, START, START)]).size == 7


def test_all_that_is_known_of_a_key_counts() -> None:
    retired = VerifyingKey(KEY.public_key(), "log", None, START - timedelta(seconds=1))
    assert reason_of(HONEST, VerifyingKey(KEY.public_key()), retired) == Reason.KEY_EXPIRED
