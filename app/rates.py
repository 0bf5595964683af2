"""How often a client may call, and an address may fail: counted in Redis, for all processes.

Counts are no promises: while Redis does not answer, everybody passes.
"""

import ipaddress
import math
import time
from collections.abc import Callable

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.errors import TooManyRequests

log = structlog.get_logger()

PREFIX = "lethe-rates"
# Seconds that an answer may wait for a count.
PATIENCE_SECONDS = 1.0
# Seconds for which nobody asks a Redis that did not answer, so that not each call waits for it.
PAUSE_SECONDS = 5.0
LOGGED_EVERY_SECONDS = 60.0
CONNECTIONS = 16


class Rates:
    """Counts in windows that slide: no burst at the turn of a minute gets twice the rate."""

    def __init__(
        self,
        broker_url: str,
        calls: str | None,
        failures: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take rates such as `6000/minute`; None for no limit. Connect to nothing yet."""
        self._calls = None if calls is None else parse(calls)
        self._failures = None if failures is None else parse(failures)
        self._clock = clock
        self._silent_until = self._logged_at = -math.inf
        self._pool = BlockingConnectionPool.from_url(
            broker_url,
            max_connections=CONNECTIONS,
            timeout=PATIENCE_SECONDS,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            # Once, since a Redis that was restarted leaves dead connections in the pool.
            retry=Retry(NoBackoff(), 1),
        )
        self._limiter = SlidingWindowCounterRateLimiter(
            RedisStorage(
                # The library's own reading of addresses wants a port; the pool has the address.
                "async+redis://",
                implementation="redispy",
                key_prefix=PREFIX,
                connection_pool=self._pool,  # type: ignore[arg-type]  # wrong in the stubs
            )
        )

    async def count_call(self, client: str) -> None:
        """Count a call of a client.

        Raises:
            TooManyRequests: it is faster than it may be; this call does not count.

        """
        await self._spend(self._calls, "call", client)

    async def count_failure(self, host: str | None) -> None:
        """Count a credential that was not in order.

        Raises:
            TooManyRequests: the address had its share; this one does not count.

        """
        await self._spend(self._failures, "failure", network(host))

    async def require_room(self, host: str | None) -> None:
        """Let an address try a credential that nobody here has seen.

        Raises:
            TooManyRequests: it failed too often.

        """
        limit = self._failures
        if limit is None or self._is_silent():
            return
        try:
            if await self._limiter.test(limit, "failure", network(host)):
                return
            wait = await self._wait(limit, "failure", network(host))
        except (RedisError, OSError) as error:
            self._note(error)
            return
        raise _refusal(wait)

    async def close(self) -> None:
        """Give the connections back."""
        await self._pool.disconnect()

    async def _spend(self, limit: RateLimitItem | None, kind: str, whose: str) -> None:
        if limit is None or self._is_silent():
            return
        try:
            if await self._limiter.hit(limit, kind, whose):
                return
            wait = await self._wait(limit, kind, whose)
        except (RedisError, OSError) as error:
            self._note(error)
            return
        raise _refusal(wait)

    async def _wait(self, limit: RateLimitItem, kind: str, whose: str) -> int:
        window = await self._limiter.get_window_stats(limit, kind, whose)
        return max(1, math.ceil(window.reset_time - time.time()))

    def _is_silent(self) -> bool:
        return self._clock() < self._silent_until

    def _note(self, error: Exception) -> None:
        at = self._clock()
        self._silent_until = at + PAUSE_SECONDS
        if at - self._logged_at >= LOGGED_EVERY_SECONDS:
            self._logged_at = at
            # Only the type: a connection error quotes the URL, which holds a password.
            log.warning("rates.unknown", error=type(error).__name__)


def network(host: str | None) -> str:
    """Return what is counted as one address: of IPv6 the network, which one machine may have."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address.packed, 64), strict=False))
    return str(address)


def _refusal(wait: int) -> TooManyRequests:
    return TooManyRequests("Come again after the seconds in `Retry-After`.", wait)
