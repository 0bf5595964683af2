"""Public keys and when they were valid: as PEM, as a JWK (RFC 7517, RFC 8037), or a set of JWKs.

A key's id is its JWK thumbprint (RFC 7638), so that whoever has a key knows its id.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


class NotAKey(ValueError):
    """What was given is no public key of a kind that signs here; it is not quoted."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key and what is known of its life; None where nothing is known."""

    public: PublicKey
    purpose: str | None = None
    """``log`` signs tree heads and receipts, ``weights`` signs weights."""
    introduced_at: datetime | None = None
    retired_at: datetime | None = None

    @property
    def id(self) -> str:
        """The JWK thumbprint, base64url without padding, 43 characters."""
        return thumbprint(self.public)


def thumbprint(public: PublicKey) -> str:
    """Return SHA-256 over the key's required JWK members (RFC 7638), base64url, no padding."""
    members = json.dumps(_required_members(public), sort_keys=True, separators=(",", ":"))
    return encode(hashlib.sha256(members.encode()).digest())


def to_jwk(key: VerifyingKey) -> dict[str, Any]:
    """Return the key as a JWK; ``iat`` and ``exp`` are the seconds of its life since 1970."""
    jwk: dict[str, Any] = {
        **_required_members(key.public),
        "alg": "EdDSA" if isinstance(key.public, Ed25519PublicKey) else "ES256",
        "kid": key.id,
        "use": "sig",
    }
    if key.purpose is not None:
        jwk["purpose"] = key.purpose
    if key.introduced_at is not None:
        jwk["iat"] = int(key.introduced_at.timestamp())
    if key.retired_at is not None:
        # Up: what was signed in the last fraction of a second is signed all the same.
        jwk["exp"] = ceil(key.retired_at.timestamp())
    return jwk


def load_keys(content: bytes) -> list[VerifyingKey]:
    """Return the keys of a file: one PEM public key, one JWK, or a JWK Set.

    Raises:
        NotAKey: it is none of these, or a key of another kind.

    """
    if content.lstrip().startswith(b"-----BEGIN"):
        return [VerifyingKey(_of_a_kind(_load_pem(content)))]
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotAKey("neither PEM nor JSON") from error
    listed = found.get("keys", [found]) if isinstance(found, dict) else None
    if not isinstance(listed, Sequence) or not listed:
        raise NotAKey("a set of keys without keys")
    return [from_jwk(each) for each in listed]


def from_jwk(jwk: object) -> VerifyingKey:
    """Return the key that a JWK describes.

    Raises:
        NotAKey: it is none, one of another kind, or a private one; or its ``kid`` is not its own.

    """
    if not isinstance(jwk, Mapping):
        raise NotAKey("a JWK is a JSON object")
    if "d" in jwk:
        raise NotAKey("a private key; it should be in nobody's hands but its owner's")
    purpose = jwk.get("purpose")
    if purpose is not None and not isinstance(purpose, str):
        raise NotAKey("a JWK's purpose is a text")
    key = VerifyingKey(
        public=_public(jwk),
        purpose=purpose,
        introduced_at=_moment(jwk.get("iat")),
        retired_at=_moment(jwk.get("exp")),
    )
    if jwk.get("kid", key.id) != key.id:
        raise NotAKey("the JWK's kid is not its thumbprint")
    return key


def to_pem(public: PublicKey) -> str:
    """Return the key as PEM (SubjectPublicKeyInfo)."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def encode(value: bytes) -> str:
    """Return base64url without padding, as JOSE writes bytes."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _required_members(public: PublicKey) -> dict[str, str]:
    if isinstance(public, Ed25519PublicKey):
        return {"crv": "Ed25519", "kty": "OKP", "x": encode(public.public_bytes_raw())}
    numbers = public.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": encode(numbers.x.to_bytes(32, "big")),
        "y": encode(numbers.y.to_bytes(32, "big")),
    }


def _public(jwk: Mapping[str, Any]) -> PublicKey:
    try:
        if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
            return Ed25519PublicKey.from_public_bytes(_decode(jwk["x"]))
        if (jwk["kty"], jwk["crv"]) == ("EC", "P-256"):
            x, y = (int.from_bytes(_decode(jwk[name]), "big") for name in ("x", "y"))
            return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except (KeyError, TypeError, ValueError) as error:
        raise NotAKey("a JWK that lacks members, or whose point is not on the curve") from error
    raise NotAKey("a JWK of another kind than OKP Ed25519 or EC P-256")


def _load_pem(content: bytes) -> object:
    try:
        return load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotAKey("no PEM public key") from error


def _of_a_kind(public: object) -> PublicKey:
    if isinstance(public, Ed25519PublicKey):
        return public
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return public
    raise NotAKey("a key of another kind than Ed25519 or P-256")


def _decode(text: str) -> bytes:
    value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(value) != text:
        raise binascii.Error("not base64url without padding")
    return value


def _moment(seconds: object) -> datetime | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise NotAKey("a JWK's iat and exp are whole seconds since 1970")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise NotAKey("a JWK's iat or exp is no moment") from error
