"""Bearer tokens of an OpenID Connect or OAuth 2.0 issuer: signed JSON Web Tokens (RFC 8725)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from app.issuer import ALGORITHMS, Issuer, IssuerKeys
from app.scopes import Client, Identity, Scope

ALLOWED = frozenset().union(*ALGORITHMS.values())
# Access tokens (RFC 9068), and what most issuers call theirs. Others are for something else.
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Keys that a token brings along prove nothing, and extensions nobody here knows.
REFUSED_HEADERS = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64"})
# For clocks that differ.
LEEWAY = timedelta(seconds=30)
LONGEST_TOKEN = 16 * 1024
LONGEST_NAME = 255
# Of clients from tokens, so that none has the name of a key's: those have no colon.
NAMESPACE = "oidc:"
CLIENT_CLAIMS = ("client_id", "azp", "sub")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose tokens are believed, and what their claims are called."""

    issuer: Issuer
    audience: str
    scope_claim: str = "scope"
    client_claim: str | None = None
    """None for the first of `client_id`, `azp` and `sub` that a token has."""


class Tokens:
    """Checks tokens of one issuer."""

    def __init__(self, trust: Trust, keys: IssuerKeys) -> None:
        """Take whom to trust, and the keys of theirs."""
        self._trust = trust
        self._keys = keys

    async def identify(self, text: str) -> Identity | None:
        """Return whom a token names; None for any that is not in order.

        Raises:
            Unavailable: the issuer's key is not known, and the issuer does not answer.

        """
        header = _header(text)
        if header is None:
            return None
        algorithm = header["alg"]
        key = await self._keys.find(header["kid"], algorithm)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                text,
                key.key,
                algorithms=[algorithm],
                audience=self._trust.audience,
                issuer=self._trust.issuer.name,
                leeway=LEEWAY,
                options={
                    "require": ["exp", "iat", "iss", "aud"],
                    "enforce_minimum_key_length": True,
                },
            )
            expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC) + LEEWAY
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError):
            return None
        name = self._name(claims)
        if name is None:
            return None
        return Identity(Client(NAMESPACE + name, self._scopes(claims)), expires_at)

    def _name(self, claims: Mapping[str, Any]) -> str | None:
        own = self._trust.client_claim
        names = [claims.get(claim) for claim in (CLIENT_CLAIMS if own is None else (own,))]
        name = next((name for name in names if name is not None), None)
        # It goes into rows, the audit log and the broker.
        sound = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()
        return name if sound else None

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        given = claims.get(self._trust.scope_claim, "")
        listed = given.split() if isinstance(given, str) else given
        return frozenset(scope for scope in Scope if isinstance(listed, list) and scope in listed)


def _header(text: str) -> Mapping[str, Any] | None:
    if len(text) > LONGEST_TOKEN or text.count(".") != 2:
        return None
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    kind = header.get("typ", "jwt")
    sound = (
        isinstance(header.get("kid"), str)
        and isinstance(kind, str)
        and kind.lower() in TYPES
        and isinstance(header.get("alg"), str)
        and header["alg"] in ALLOWED
        and not REFUSED_HEADERS & header.keys()
    )
    return header if sound else None
