"""No byte of a receipt can be changed, left out or added without notice."""

import rfc8785

from lethe.verify import NotProven, Reason, verify_receipt
from tests.lethe.verify.names import TRUSTED
from tests.lethe.verify.story import in_two_versions, simple

RECEIPT = rfc8785.dumps(simple()[1])


def refused(content: bytes) -> Reason | None:
    try:
        verify_receipt(content, [TRUSTED])
    except NotProven as error:
        return error.reason
    return None


def test_each_byte_flipped_in_turn_is_noticed() -> None:
    assert refused(RECEIPT) is None
    met = set()
    for position in range(len(RECEIPT)):
        changed = bytearray(RECEIPT)
        # Another bit for each, over a period that no structure of the text has.
        changed[position] ^= 1 << (position * 5 + position // 8) % 8
        reason = refused(bytes(changed))
        assert reason is not None, (position, RECEIPT[position - 20 : position + 20])
        met.add(reason)
    assert {
        Reason.UNREADABLE,
        Reason.NOT_CANONICAL,
        Reason.RECEIPT_MALFORMED,
        Reason.NOT_A_RECEIPT,
        Reason.UNKNOWN_KEY,
        Reason.BAD_SIGNATURE,
        Reason.HEAD_SIGNATURE,
        Reason.NOT_IN_THE_LOG,
        Reason.COMMITMENT_CONTRADICTS,
    } <= met


def test_letters_changed_to_others_of_their_kind_are_noticed() -> None:
    # A flipped bit often breaks the text already; these are texts, numbers and base64 as before.
    for position, byte in enumerate(RECEIPT):
        if position % 3 == 0 and chr(byte).isalnum():
            changed = bytearray(RECEIPT)
            changed[position] = {b"9": b"8", b"f": b"e", b"z": b"y", b"Z": b"Y"}.get(
                bytes([byte]), bytes([byte + 1])
            )[0]
            assert refused(bytes(changed)) is not None, position


def test_bytes_left_out_or_added_are_noticed() -> None:
    for position in range(0, len(RECEIPT), 7):
        assert refused(RECEIPT[:position] + RECEIPT[position + 1 :]) is not None
        twice = RECEIPT[: position + 1] + RECEIPT[position:]
        assert refused(twice) is not None
        assert refused(RECEIPT[:position]) is not None


def test_no_part_of_one_receipt_fits_into_another() -> None:
    one, other = simple()[1], in_two_versions()[1]
    for part in ("envelope", "log", "transitions"):
        assert refused(rfc8785.dumps({**one, part: other[part]})) is not None
        assert refused(rfc8785.dumps({**other, part: one[part]})) is not None
    assert refused(rfc8785.dumps(other)) is None
