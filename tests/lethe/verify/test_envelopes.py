"""A receipt is a statement and an envelope to the tools that others made for them, too."""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from lethe.verify import NotProven, Reason, VerifyingKey
from lethe.verify.dsse import open_envelope, pae
from lethe.verify.keys import thumbprint
from tests.lethe.verify import naive
from tests.lethe.verify.names import KEY, OTHER_KEY, TRUSTED
from tests.lethe.verify.sealing import opened, seal
from tests.lethe.verify.story import simple

PAYLOAD = b'{"any":"payload"}'


def reason_of(envelope: Any, *keys: VerifyingKey) -> Reason:
    with pytest.raises(NotProven) as refused:
        open_envelope(envelope, keys or [TRUSTED])
    return refused.value.reason


def test_the_receipts_envelope_is_one_to_securesystemslib() -> None:
    envelope = simple()[1]["envelope"]
    key = SSlibKey.from_crypto(KEY.public_key(), thumbprint(KEY.public_key()))
    read = Envelope.from_dict(json.loads(json.dumps(envelope)))
    assert read.verify([key], threshold=1) == {key.keyid: key}
    assert read.pae() == pae(envelope["payloadType"], read.payload)
    payload, signer = open_envelope(envelope, [TRUSTED])
    assert (payload, signer) == (read.payload, TRUSTED)
    read.payload += b" "
    with pytest.raises(VerificationError):
        read.verify([key], threshold=1)


def test_the_receipts_statement_is_one_to_in_toto() -> None:
    statement = opened(simple()[1])
    message = json_format.ParseDict(statement, Message())
    Statement.copy_from_pb(message).validate()
    message.subject[0].ClearField("digest")
    with pytest.raises(ValueError, match="digest"):
        Statement.copy_from_pb(message).validate()


def test_what_is_signed_is_the_encoding_of_dsse() -> None:
    # The example in the protocol's text.
    encoded = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == encoded
    assert naive.pae(b"http://example.com/HelloWorld", b"hello world") == encoded


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"payload": 1},
        {"payload": "e30"},
        {"payload": "e31="},
        {"payload": "e3 0="},
        {"payload": "é"},
        {"signatures": []},
        {"signatures": seal(PAYLOAD)["signatures"] * 2},
        {"signatures": [{"keyid": "k"}]},
        {"signatures": [{"keyid": "k", "sig": "A"}]},
        {"signatures": {"keyid": "k", "sig": ""}},
        {"payloadType": ["application/vnd.in-toto+json"]},
    ],
)
def test_an_envelope_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    assert open_envelope(seal(PAYLOAD), [TRUSTED])[0] == PAYLOAD
    assert reason_of(seal(PAYLOAD) | change) == Reason.RECEIPT_MALFORMED


def test_an_envelope_of_another_type_is_no_receipt_though_it_is_signed() -> None:
    kind = "application/json"
    signature = seal(PAYLOAD, payloadType=kind)["signatures"]
    assert reason_of(seal(PAYLOAD, payloadType=kind, signatures=signature)) == Reason.NOT_A_RECEIPT


def test_a_swapped_key_is_told_from_a_bad_signature() -> None:
    by_other = seal(PAYLOAD, OTHER_KEY)
    assert reason_of(by_other) == Reason.UNKNOWN_KEY
    by_other["signatures"][0]["keyid"] = TRUSTED.id
    assert reason_of(by_other) == Reason.BAD_SIGNATURE
    moved = seal(PAYLOAD, signatures=seal(b"{}")["signatures"])
    assert reason_of(moved) == Reason.BAD_SIGNATURE
    assert reason_of(seal(PAYLOAD), VerifyingKey(KEY.public_key(), "weights")) == (
        Reason.WRONG_KEY_PURPOSE
    )


def test_a_signature_is_not_good_without_its_encoding() -> None:
    bare = base64.b64encode(KEY.sign(PAYLOAD)).decode()
    envelope = seal(PAYLOAD, signatures=[{"keyid": TRUSTED.id, "sig": bare}])
    assert reason_of(envelope) == Reason.BAD_SIGNATURE
