"""Sign messages as Standard Webhooks 1.0 has it, with a secret that both sides know."""

import base64
import hashlib
import hmac
import secrets

SECRET_PREFIX = "whsec_"  # noqa: S105  # what a secret begins with, and none itself
SECRET_BYTES = 32


def new_secret() -> bytes:
    """Draw a secret for one receiver."""
    return secrets.token_bytes(SECRET_BYTES)


def show(secret: bytes) -> str:
    """Return a secret as its receiver is given it, once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of one attempt at a message.

    Args:
        secret: its receiver's.
        message_id: the same at each attempt, without a full stop.
        timestamp: of the attempt, in whole seconds since 1970.
        body: exactly what is sent.

    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
