"""Signed envelopes: DSSE v1 with one Ed25519 signature."""

from collections.abc import Sequence

from lethe.verify.documents import Malformed, members, only, text
from lethe.verify.keys import VerifyingKey
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.signers import check_signature
from lethe.verify.spelling import parse_base64

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what a signature covers: DSSE's pre-authentication encoding, version 1."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def open_envelope(envelope: object, keys: Sequence[VerifyingKey]) -> tuple[bytes, VerifyingKey]:
    """Return an envelope's payload and the key that signed it.

    The key's life is not looked at: when it signed stands in the payload.

    Raises:
        NotProven: the envelope is malformed, of another type, or not signed by one of the keys.

    """
    try:
        parts = members(envelope, "envelope", "payload", "payloadType", "signatures")
        payload_type = text(parts["payloadType"], "envelope.payloadType")
        payload = parse_base64(text(parts["payload"], "envelope.payload"))
        signed = members(
            only(parts["signatures"], "envelope.signatures"), "signature", "keyid", "sig"
        )
        key_id = text(signed["keyid"], "signature.keyid")
        signature = parse_base64(text(signed["sig"], "signature.sig"))
    except Malformed as error:
        raise NotProven(Reason.RECEIPT_MALFORMED, str(error)) from None
    except ValueError:
        raise NotProven(Reason.RECEIPT_MALFORMED, "envelope: not canonical base64") from None
    if payload_type != PAYLOAD_TYPE:
        raise NotProven(Reason.NOT_A_RECEIPT, f"the envelope's payload is no {PAYLOAD_TYPE}")
    named = [key for key in keys if key.id == key_id]
    message = pae(payload_type, payload)
    return payload, check_signature(named, signature, message, Reason.BAD_SIGNATURE)
