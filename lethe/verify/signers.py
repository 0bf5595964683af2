"""Which of the trusted keys may have signed what, and when."""

from collections.abc import Sequence
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lethe.verify.keys import VerifyingKey
from lethe.verify.reasons import NotProven, Reason


def check_signature(
    keys: Sequence[VerifyingKey], signature: bytes, message: bytes, otherwise: Reason
) -> VerifyingKey:
    """Return the key among these that signed a message of the log.

    Raises:
        NotProven: there is no key, one is not for the log, or none of them signed it.

    """
    if not keys:
        raise NotProven(Reason.UNKNOWN_KEY, "it names a key that is not among those given")
    for key in keys:
        if key.purpose not in (None, "log") or not isinstance(key.public, Ed25519PublicKey):
            raise NotProven(
                Reason.WRONG_KEY_PURPOSE, f"{key.id} is not a key for heads and receipts"
            )
    for key in keys:
        if _signed(key.public, signature, message):
            return key
    raise NotProven(otherwise, f"the signature is not one of {keys[0].id} over these bytes")


def check_life(keys: Sequence[VerifyingKey], signer: VerifyingKey, at: datetime) -> None:
    """Hold a signature's time against all that is known of its key's life.

    Raises:
        NotProven: the key was not in use yet, or not any more.

    """
    for key in keys:
        if key.id != signer.id:
            continue
        if key.introduced_at is not None and at < key.introduced_at:
            raise NotProven(
                Reason.KEY_NOT_YET_VALID,
                f"{key.id} is in use since {key.introduced_at.isoformat()}; "
                f"the signature says {at.isoformat()}",
            )
        if key.retired_at is not None and at > key.retired_at:
            raise NotProven(
                Reason.KEY_EXPIRED,
                f"{key.id} was retired at {key.retired_at.isoformat()}; "
                f"the signature says {at.isoformat()}",
            )


def _signed(public: object, signature: bytes, message: bytes) -> bool:
    if not isinstance(public, Ed25519PublicKey):
        return False
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True
