"""Rates: a client that is too fast is told when to come again, and nobody else is held up."""

import asyncio
import hashlib
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from app import gate
from app.errors import TooManyRequests
from app.identities import FRESH_SECONDS, Identities
from app.rates import PAUSE_SECONDS, Rates, network
from app.scopes import Scope
from app.settings import Settings, settings
from tests.app.callers import bearer, give
from tests.app.clockwork import Clock
from tests.app.receivers import talking
from tests.app.watching import statements

REQUESTS = "/v1/deletion-requests"
ROOT = "an operator's key of the tests"
ROOT_DIGEST = hashlib.sha256(ROOT.encode()).digest()
URLS = {"database_url": "postgresql://lethe@127.0.0.1/lethe", "broker_url": "redis://127.0.0.1/0"}


@contextmanager
def limited(reread: Callable[[str, str], None], **chosen: str) -> Iterator[TestClient]:
    """The API with limits."""
    from app.main import create_app

    for name, value in chosen.items():
        reread(f"LETHE_{name.upper()}", value)
    with TestClient(create_app()) as client:
        yield client


def test_a_client_that_is_too_fast_is_told_when_to_come_again(
    environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    fast, other = give("shop", Scope.READ), give("other", Scope.READ)
    with limited(reread, rate_limit="3/hour") as client:
        answers = [client.get(REQUESTS, headers=bearer(fast)) for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        refused = answers[3]
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["type"] == "urn:lethe:problem:too-many-requests"
        assert 1 <= int(refused.headers["Retry-After"]) <= 2 * 3600
        # Its other key is the same client; another client is not.
        assert client.get(REQUESTS, headers=bearer(give("shop", Scope.READ))).status_code == 429
        assert client.get(REQUESTS, headers=bearer(other)).status_code == 200
        assert client.get("/healthz", headers=bearer(fast)).status_code == 200


def test_a_window_slides_until_there_is_room_again(environment: dict[str, str]) -> None:
    rates = Rates(environment["LETHE_BROKER_URL"], "2/second", None)

    async def hurry() -> tuple[int, list[int]]:
        passed, waits = 0, []
        while passed < 6:
            try:
                await rates.count_call("shop")
                passed += 1
            except TooManyRequests as refused:
                waits.append(int((refused.headers or {})["Retry-After"]))
        await rates.close()
        return passed, waits

    begun = asyncio.run(timed(hurry))
    assert begun[1][1]
    assert set(begun[1][1]) <= {1, 2}
    # Six calls at two a second: the first two at once, and the last ones two seconds later.
    assert begun[0] > 1.0


async def timed(work: Callable[[], object]) -> tuple[float, tuple[int, list[int]]]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    found = await work()  # type: ignore[misc]
    return loop.time() - begun, found


def test_all_processes_count_together(environment: dict[str, str]) -> None:
    async def calls() -> list[bool]:
        passed = []
        for _ in range(4):
            rates = Rates(environment["LETHE_BROKER_URL"], "2/hour", None)
            try:
                await rates.count_call("shop")
                passed.append(True)
            except TooManyRequests:
                passed.append(False)
            await rates.close()
        return passed

    assert asyncio.run(calls()) == [True, True, False, False]


def test_an_address_that_fails_too_often_learns_nothing_more(
    environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    regular, newcomer = give("shop", Scope.READ), give("shop", Scope.READ)
    expired = newcomer[:-64] + secrets.token_hex(32)
    with limited(reread, failed_login_limit="3/hour") as client:
        assert client.get(REQUESTS, headers=bearer(regular)).status_code == 200
        for _ in range(3):
            assert client.get(REQUESTS, headers=bearer(expired)).status_code == 401
        shown = [expired, "no key", f"lethe_{'0' * 32}_{'0' * 64}", newcomer]
        with statements() as asked:
            answers = [client.get(REQUESTS, headers=bearer(key)) for key in shown]
        assert {(each.status_code, each.content) for each in answers} == {(429, answers[0].content)}
        assert all(int(each.headers["Retry-After"]) >= 1 for each in answers)
        assert asked == []
        # Who was in order before is no stranger, and whoever shows nothing guesses nothing.
        assert client.get(REQUESTS, headers=bearer(regular)).status_code == 200
        assert client.get(REQUESTS).status_code == 401
        assert client.get("/readyz", headers=bearer(expired)).status_code == 200


def ask(rates: Rates, known: Identities, host: str | None, key: str) -> int:
    """Pass the gate from an address; returns the status."""
    seen: list[int] = []

    async def inside(_: Connection, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def send(message: object) -> None:
        if isinstance(message, dict) and "status" in message:
            seen.append(message["status"])

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "path": REQUESTS,
        "headers": [
            (b"authorization", f"Bearer {key}".encode()),
            (b"x-forwarded-for", b"198.51.100.7"),
            (b"forwarded", b"for=198.51.100.7"),
        ],
        "client": None if host is None else (host, 1234),
    }

    async def call() -> None:
        await gate.Closed(inside, known, rates)(scope, receive, send)  # type: ignore[arg-type]
        await rates.close()

    asyncio.run(call())
    return seen[0]


def test_failures_belong_to_the_address_of_the_connection_whatever_a_header_says(
    environment: dict[str, str],
) -> None:
    known = Identities(ROOT_DIGEST, None)
    for host, neighbour, stranger in (
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
    ):
        rates = Rates(environment["LETHE_BROKER_URL"], None, "1/hour")
        assert [ask(rates, known, host, "wrong") for _ in range(2)] == [401, 429]
        assert ask(rates, known, neighbour, "wrong") == 429
        assert ask(rates, known, stranger, "wrong") == 401
    # A socket of this machine has no address: they are one.
    assert [ask(rates, known, None, "wrong") for _ in range(2)] == [401, 429]


def test_one_who_guesses_locks_nobody_out_behind_the_same_proxy(
    environment: dict[str, str],
) -> None:
    clock = Clock()
    known = Identities(ROOT_DIGEST, None, clock)
    rates = Rates(environment["LETHE_BROKER_URL"], None, "1/hour")
    assert ask(rates, known, "192.0.2.1", ROOT) == 204
    assert [ask(rates, known, "192.0.2.1", "wrong") for _ in range(2)] == [401, 429]
    # It has to be looked up again, and is no stranger; a process that never saw it cannot know.
    clock.at += FRESH_SECONDS
    assert ask(rates, known, "192.0.2.1", ROOT) == 204
    assert ask(rates, Identities(ROOT_DIGEST, None), "192.0.2.1", ROOT) == 429
    assert ask(rates, Identities(ROOT_DIGEST, None), "192.0.2.2", ROOT) == 204


def test_one_machine_is_one_address() -> None:
    assert network("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network(None) == network("") == "unknown"
    assert network("testclient") == "testclient"


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """Somebody who takes connections and says nothing, until the other side goes."""
    with talking(lambda connection: [*iter(lambda: connection.recv(1024), b"")] and None) as port:
        yield port


@pytest.mark.parametrize("broken", [refusing, silent])
def test_while_redis_is_away_everybody_passes_and_it_is_said_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    broken: Callable[[], object],
) -> None:
    monkeypatch.setattr("app.rates.PATIENCE_SECONDS", 0.1)
    clock = Clock()

    async def call(url: str) -> list[float]:
        rates = Rates(url, "1/hour", "1/hour", clock)
        took, loop = [], asyncio.get_running_loop()
        for pause in (0.0, 0.0, PAUSE_SECONDS, 0.0, 60.0):
            clock.at += pause
            begun = loop.time()
            for _ in range(10):
                await rates.count_call("shop")
                await rates.count_failure("192.0.2.1")
                await rates.require_room("192.0.2.1")
            took.append(loop.time() - begun)
        await rates.close()
        return took

    with broken() as port:  # type: ignore[attr-defined]
        took = asyncio.run(call(f"redis://:pass-word-1@127.0.0.1:{port}/0"))
    # Asked once at the start, and once after each pause; then nobody waits for it.
    assert max(took) < 2
    assert took[1] < 0.05
    assert took[3] < 0.05
    logged = "".join(capfd.readouterr())
    assert logged.count("rates.unknown") == 2
    assert "pass-word-1" not in logged


def test_an_address_may_leave_the_port_out() -> None:
    async def call() -> None:
        rates = Rates("redis://user:pass-word-1@127.0.0.1", "1/hour", None)
        await rates.count_call("shop")  # whether anybody listens there or not
        await rates.close()

    asyncio.run(call())


def test_counting_goes_on_when_redis_is_back(environment: dict[str, str]) -> None:
    url, clock = environment["LETHE_BROKER_URL"], Clock()
    rates = Rates(url, "2/hour", None, clock)

    async def calls(number: int) -> int:
        passed = 0
        for _ in range(number):
            try:
                await rates.count_call("shop")
                passed += 1
            except TooManyRequests:
                pass
        return passed

    async def go() -> tuple[int, ...]:
        found = [await calls(3)]
        with redis.Redis.from_url(url) as broker:
            # What is left in the pool is dead, as after a restart.
            broker.client_kill_filter(_type="normal", skipme=True)
            found.append(await calls(3))
            broker.flushall()
        found.append(await calls(3))
        await rates.close()
        return tuple(found)

    assert asyncio.run(go()) == (2, 0, 2)


def test_without_limits_redis_is_not_asked(
    environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    for off in ({}, {"rate_limit": "0", "failed_login_limit": ""}):
        with limited(reread, **off) as client:
            for _ in range(3):
                key = bearer(environment["LETHE_API_KEY"])
                assert client.get(REQUESTS, headers=key).status_code == 200
                assert client.get(REQUESTS, headers=bearer("wrong")).status_code == 401
        assert (settings().rate_limit, settings().failed_login_limit) == (None, None)
    with redis.Redis.from_url(environment["LETHE_BROKER_URL"]) as broker:
        assert broker.keys("*lethe-rates*") == []


def test_a_rate_that_is_none_is_refused_at_the_start() -> None:
    for good in ("6000/minute", "1 / second", "10/hour", "1/day"):
        assert Settings(**URLS, rate_limit=good).rate_limit == good
    for bad in ("fast", "-1/minute", "0/minute", "10", "10/2minutes", "1e3/minute", "1/fortnight"):
        with pytest.raises(ValidationError):
            Settings(**URLS, rate_limit=bad)
