"""Whom a bearer credential belongs to: a key of a client, the operator's own, or a token.

What was found is kept for seconds, so that not each call costs a query or a signature's check.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from anyio import CapacityLimiter
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.access_keys import credentials, lookup
from app.db import now
from app.errors import Unavailable
from app.scopes import OPERATOR, Client, Identity, Scope
from app.tokens import Tokens

log = structlog.get_logger()

# As long as a revoked key may go on working.
FRESH_SECONDS = 5.0
# Who was in order within this is no stranger, whatever else comes from the same address.
SEEN_SECONDS = 3_600.0
# Only valid credentials take a place, so that strangers push nobody out.
MOST_KEPT = 10_000
# Strangers with made-up keys take no more threads and connections than this.
LOOKUPS_AT_ONCE = 4
ROOT = Identity(Client(OPERATOR, frozenset(Scope)), None)


@dataclass(frozen=True, slots=True)
class _Found:
    identity: Identity
    at: float


class Identities:
    """Finds out whom credentials belong to; knows them by their SHA-256."""

    def __init__(
        self,
        root_digest: bytes | None,
        tokens: Tokens | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the SHA-256 of the operator's key and the check of tokens, where there are any."""
        self._root_digest = root_digest
        self._tokens = tokens
        self._clock = clock
        self._found: dict[bytes, _Found] = {}
        self._lookups = CapacityLimiter(LOOKUPS_AT_ONCE)

    def fresh(self, text: str) -> Client | None:
        """Return whom a credential belonged to seconds ago, unless it expired since."""
        found = self._found.get(_digest(text))
        if found is None or self._clock() - found.at >= FRESH_SECONDS:
            return None
        ends = found.identity.expires_at
        return found.identity.client if ends is None or now() < ends else None

    def has_seen(self, text: str) -> bool:
        """Tell whether a credential was in order within the hour."""
        found = self._found.get(_digest(text))
        return found is not None and self._clock() - found.at < SEEN_SECONDS

    async def identify(self, text: str) -> Client | None:
        """Return whom a credential belongs to; None for any that is not in order.

        Raises:
            Unavailable: what it takes to tell does not answer.

        """
        digest, began = _digest(text), self._clock()
        # In constant time, so that a wrong key does not tell how far it is right.
        if self._root_digest is not None and hmac.compare_digest(digest, self._root_digest):
            return self._keep(digest, began, ROOT)
        if credentials.read(text) is None:
            identity = None if self._tokens is None else await self._tokens.identify(text)
            return self._keep(digest, began, identity)
        async with self._lookups:
            # Of many calls that come at once with one key, the first ones ask for all.
            found = self._found.get(digest)
            if found is not None and found.at > began:
                return found.identity.client
            at = self._clock()
            return self._keep(digest, at, await _look_up(text))

    def _keep(self, digest: bytes, at: float, identity: Identity | None) -> Client | None:
        self._found.pop(digest, None)
        if identity is None:
            return None
        while len(self._found) >= MOST_KEPT:
            # The one that was checked longest ago: the order is that of the last check.
            self._found.pop(next(iter(self._found)))
        self._found[digest] = _Found(identity, at)
        return identity.client


async def _look_up(text: str) -> Identity | None:
    try:
        return await run_in_threadpool(lookup.identify, text)
    except SQLAlchemyError as error:
        log.error("database.unavailable", error=type(error).__name__)
        raise Unavailable("Nothing was stored. Send the same request again.") from None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
