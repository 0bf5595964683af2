"""Keyed digests of sample IDs: what the service stores instead of the IDs."""

import hashlib
import hmac

LONGEST_SAMPLE_ID_BYTES = 256


def digest_sample_id(key: bytes, sample_id: str) -> bytes:
    """Return HMAC-SHA-256(key, UTF-8 of the ID), 32 bytes (RFC 2104).

    A plain hash would not do: the space of real IDs is small enough to be searched.
    """
    return hmac.digest(key, sample_id.encode(), "sha256")


def digest_for(key: bytes, purpose: str, value: bytes) -> bytes:
    """Return a keyed digest of other client input, in a domain apart from the sample IDs'."""
    derived = hmac.digest(key, b"lethe/" + purpose.encode(), "sha256")
    return hmac.digest(derived, value, "sha256")


def key_id(key: bytes) -> str:
    """Return the public name of a key: it tells keys apart and reveals nothing of them."""
    return "k-" + hashlib.sha256(b"lethe key id\0" + key).hexdigest()[:16]
