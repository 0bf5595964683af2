"""The public keys of the issuer of tokens: fetched, kept, and asked for again within bounds."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpcore2
import httpx2
import structlog
from jwt import PyJWK, PyJWTError

from app.errors import Unavailable
from app.issuer_url import may_be_asked

log = structlog.get_logger()

# Asymmetric ones alone: whoever can check a token must not be able to make one.
ALGORITHMS = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
# Keys are good for this long; then they are asked for again, and kept while nobody answers.
KEPT_SECONDS = 900.0
# Between two questions, so that tokens with made-up key ids cost the issuer nothing.
PAUSE_SECONDS = 10.0
FETCH_SECONDS = 5.0
# A set of keys has a few kilobytes.
LONGEST_ANSWER = 256 * 1024


class _NotFetched(Exception):
    """The issuer gave no keys; the words name the kind of the trouble alone."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where tokens come from."""

    name: str
    jwks_url: str | None = None
    """None to ask the issuer where its keys are (OpenID Connect Discovery 1.0, 4)."""
    plain_http: bool = False
    """Whether one on this very machine may do without TLS."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key of the issuer."""

    id: str
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class IssuerKeys:
    """The keys of one issuer, as this process knows them."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask for nothing yet."""
        self._issuer = issuer
        self._clock = clock
        self._keys: tuple[TokenKey, ...] = ()
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def find(self, id_: str, algorithm: str) -> TokenKey | None:
        """Return the key of this id and algorithm, or None if the issuer has none.

        Raises:
            Unavailable: it is not among the known ones, and the issuer does not answer.

        """
        known = self._known(id_, algorithm)
        if known is not None:
            # One caller asks for news; the others go on with what is known, and so does that one
            # if there are none.
            if self._is_stale() and not self._asking.locked():
                await self._ask(self._is_stale)
                return self._known(id_, algorithm)
            return known
        await self._ask(lambda: self._known(id_, algorithm) is None)
        known = self._known(id_, algorithm)
        if known is None and self._fetched_at != self._asked_at:
            raise Unavailable("The issuer of tokens does not answer; come again.")
        return known

    def _known(self, id_: str, algorithm: str) -> TokenKey | None:
        return next(
            (key for key in self._keys if key.id == id_ and algorithm in key.algorithms), None
        )

    def _is_stale(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at >= KEPT_SECONDS

    async def _ask(self, is_wanted: Callable[[], bool]) -> None:
        async with self._asking:
            at = self._clock()
            early = self._asked_at is not None and at - self._asked_at < PAUSE_SECONDS
            if early or not is_wanted():
                return
            self._asked_at = at
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    self._keys = await _fetch_keys(self._issuer)
            except (TimeoutError, _NotFetched) as error:
                log.warning("issuer.failed", error=str(error) or "timed out")
                return
            self._fetched_at = at
            log.info("issuer.asked", keys=len(self._keys))


async def _fetch_keys(issuer: Issuer) -> tuple[TokenKey, ...]:
    # Proxies of the environment are not used, and redirects not followed.
    async with httpx2.AsyncClient(
        timeout=FETCH_SECONDS,
        trust_env=False,
        follow_redirects=False,
        verify=httpcore2.default_ssl_context(),
    ) as client:
        url = issuer.jwks_url
        if url is None:
            place = issuer.name.removesuffix("/") + "/.well-known/openid-configuration"
            found = await _fetch(client, issuer, place)
            if found.get("issuer") != issuer.name:
                raise _NotFetched("another issuer's configuration")
            url = found.get("jwks_uri")
        listed = (await _fetch(client, issuer, url)).get("keys")
    if not isinstance(listed, list):
        raise _NotFetched("no set of keys")
    return usable(listed)


async def _fetch(client: httpx2.AsyncClient, issuer: Issuer, url: object) -> dict[str, Any]:
    if not isinstance(url, str) or not may_be_asked(url, plain_http=issuer.plain_http):
        raise _NotFetched("its keys are not behind https")
    content = bytearray()
    try:
        async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise _NotFetched(f"status {answer.status_code}")
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > LONGEST_ANSWER:
                    raise _NotFetched("too long an answer")
        found = json.loads(content)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError) as error:
        raise _NotFetched(type(error).__name__) from None
    if not isinstance(found, dict):
        raise _NotFetched("no JSON object")
    return found


def usable(listed: Sequence[object]) -> tuple[TokenKey, ...]:
    """Return those of a JWK Set's keys that can check a signature of an allowed algorithm."""
    read = (_read(jwk) for jwk in listed if isinstance(jwk, dict))
    return tuple(key for key in read if key is not None)


def _read(jwk: dict[str, Any]) -> TokenKey | None:
    id_, kind, stated = jwk.get("kid"), jwk.get("kty"), jwk.get("alg")
    # With `d` it is a private key, and everybody's by now.
    if not isinstance(id_, str) or not isinstance(kind, str) or "d" in jwk:
        return None
    if jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    allowed = ALGORITHMS.get(kind, frozenset())
    try:
        # A curve has one algorithm; a modulus serves any of its kind that it is not stated for.
        own = allowed if kind == "RSA" else {PyJWK({**jwk, "alg": None}).algorithm_name}
        chosen = allowed & own & (own if stated is None else {stated})
        return TokenKey(id_, chosen, PyJWK(jwk, next(iter(chosen))).key) if chosen else None
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
