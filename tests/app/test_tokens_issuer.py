"""The issuer's keys: found, kept, and asked for within bounds, also while it is away."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from app import issuer as keys
from app.errors import Unavailable
from app.issuer import KEPT_SECONDS, LONGEST_ANSWER, PAUSE_SECONDS, IssuerKeys, TokenKey
from app.issuer_url import may_be_asked
from app.settings import Settings
from tests.app.clockwork import Clock
from tests.app.issuers import DISCOVERY, Issuer, issuing, jwk, private

ONE, TWO = private("ES256"), private("ES256", 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        started.publish(jwk(ONE))
        yield started


@pytest.fixture
def known(issuer: Issuer, clock: Clock) -> IssuerKeys:
    return IssuerKeys(keys.Issuer(issuer.url, plain_http=True), clock)


def find(known: IssuerKeys, id_: str = "one", algorithm: str = "ES256") -> TokenKey | None:
    return asyncio.run(known.find(id_, algorithm))


def test_the_keys_are_found_where_the_issuer_says_and_asked_for_once(
    issuer: Issuer, known: IssuerKeys
) -> None:
    for _ in range(5):
        found = find(known)
        assert found is not None
        assert found.key.public_numbers() == ONE.public_key().public_numbers()
    assert issuer.asked == [DISCOVERY, "/keys"]
    assert find(known, algorithm="ES384") is None


def test_an_address_of_the_keys_saves_the_question_for_it(issuer: Issuer, clock: Clock) -> None:
    del issuer.pages[DISCOVERY]
    known = IssuerKeys(keys.Issuer(issuer.url, issuer.url + "/keys", plain_http=True), clock)
    assert find(known) is not None
    assert issuer.asked == ["/keys"]


def test_made_up_ids_cost_the_issuer_one_question_in_a_while(
    issuer: Issuer, known: IssuerKeys, clock: Clock
) -> None:
    for number in range(20):
        assert find(known, f"made up {number}") is None
    assert issuer.asked.count("/keys") == 1
    clock.at += PAUSE_SECONDS
    for number in range(20):
        assert find(known, f"made up {number}") is None
    assert issuer.asked.count("/keys") == 2


def test_a_new_key_is_found_when_its_first_token_comes(
    issuer: Issuer, known: IssuerKeys, clock: Clock
) -> None:
    assert find(known, "two") is None
    issuer.publish(jwk(ONE), jwk(TWO, "two"))
    assert find(known, "two") is None
    clock.at += PAUSE_SECONDS
    assert find(known, "two") is not None
    assert find(known) is not None


def test_a_key_that_the_issuer_took_back_is_forgotten_in_time(
    issuer: Issuer, known: IssuerKeys, clock: Clock
) -> None:
    assert find(known) is not None
    # As the operator is told.
    assert (KEPT_SECONDS, PAUSE_SECONDS) == (15 * 60, 10)
    issuer.publish(jwk(TWO, "two"))
    clock.at += KEPT_SECONDS - 1
    assert find(known) is not None
    clock.at += 1
    assert find(known) is None
    assert find(known, "two") is not None


def test_while_the_issuer_is_away_known_keys_go_on_and_unknown_ones_wait(
    issuer: Issuer, known: IssuerKeys, clock: Clock
) -> None:
    assert find(known) is not None
    issuer.is_up = False
    for _ in range(3):
        clock.at += KEPT_SECONDS
        before = len(issuer.asked)
        for _ in range(5):
            assert find(known) is not None
            with pytest.raises(Unavailable):
                find(known, "two")
        assert len(issuer.asked) == before + 1
    issuer.is_up = True
    issuer.publish(jwk(ONE), jwk(TWO, "two"))
    clock.at += PAUSE_SECONDS
    assert find(known, "two") is not None
    assert find(known, "three") is None


def test_nobody_waits_for_news_of_a_key_that_is_known(
    issuer: Issuer, known: IssuerKeys, clock: Clock
) -> None:
    async def stall() -> None:
        assert await known.find("one", "ES256") is not None
        clock.at += KEPT_SECONDS
        before = len(issuer.asked)
        issuer.hold.clear()
        asking = asyncio.create_task(known.find("one", "ES256"))
        while len(issuer.asked) == before:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(1):
            for _ in range(5):
                assert await known.find("one", "ES256") is not None
        assert not asking.done()
        issuer.hold.set()
        assert await asking is not None

    asyncio.run(stall())


def test_many_that_need_a_key_at_once_ask_once(issuer: Issuer, known: IssuerKeys) -> None:
    async def together() -> list[TokenKey | None]:
        return await asyncio.gather(*(known.find("one", "ES256") for _ in range(20)))

    assert None not in asyncio.run(together())
    assert issuer.asked == [DISCOVERY, "/keys"]


SPOILT: dict[str, Callable[[Issuer], None]] = {
    "an error": lambda issuer: issuer.serve("/keys", {"keys": [jwk(ONE)]}, status=500),
    "a redirect": lambda issuer: issuer.serve("/keys", {}, status=302, Location="/elsewhere"),
    "no JSON": lambda issuer: issuer.serve("/keys", b"<html>"),
    "no object": lambda issuer: issuer.serve("/keys", [jwk(ONE)]),
    "no keys": lambda issuer: issuer.serve("/keys", {}),
    "keys of no list": lambda issuer: issuer.serve("/keys", {"keys": {"one": jwk(ONE)}}),
    "deep JSON": lambda issuer: issuer.serve("/keys", b"[" * 100_000),
    "no discovery": lambda issuer: issuer.pages.__delitem__(DISCOVERY) or None,
    "another's discovery": lambda issuer: issuer.serve(
        DISCOVERY, {"issuer": issuer.url + "/", "jwks_uri": issuer.url + "/keys"}
    ),
    "a plain address": lambda issuer: issuer.serve(
        DISCOVERY, {"issuer": issuer.url, "jwks_uri": "http://issuer.example.com/keys"}
    ),
    "a file": lambda issuer: issuer.serve(
        DISCOVERY, {"issuer": issuer.url, "jwks_uri": "file:///etc/passwd"}
    ),
    "no address": lambda issuer: issuer.serve(DISCOVERY, {"issuer": issuer.url, "jwks_uri": 7}),
    "a long answer": lambda issuer: issuer.serve(
        "/keys", json.dumps({"keys": [jwk(ONE)]}).encode() + b" " * LONGEST_ANSWER
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_an_answer_that_is_not_in_order_is_none(
    issuer: Issuer, known: IssuerKeys, clock: Clock, spoilt: str
) -> None:
    SPOILT[spoilt](issuer)
    issuer.serve("/elsewhere", {"keys": [jwk(ONE)]})
    with pytest.raises(Unavailable):
        find(known)
    assert "/elsewhere" not in issuer.asked
    issuer.publish(jwk(ONE))
    clock.at += PAUSE_SECONDS
    assert find(known) is not None


def test_an_issuer_that_takes_its_time_is_not_waited_for(
    issuer: Issuer, known: IssuerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0.2)
    issuer.hold.clear()
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        find(known)
    assert time.monotonic() - begun < 5


def test_keys_come_over_tls_or_from_this_machine(issuer: Issuer, clock: Clock) -> None:
    for url, tls_alone, embedded in (
        ("https://issuer.example.com/keys", True, True),
        ("https://127.0.0.1:8443", True, True),
        ("http://127.0.0.1:8080", False, True),
        ("http://[::1]:8080", False, True),
        ("http://localhost", False, True),
        ("http://issuer.example.com", False, False),
        ("http://127.0.0.1.example.com", False, False),
        ("http://10.0.0.1", False, False),
        ("https://user:pass@issuer.example.com", False, False),
        ("https://issuer.example.com/#part", False, False),
        ("https://issuer.example.com:99999", False, False),
        ("https://", False, False),
        ("ftp://issuer.example.com", False, False),
        ("issuer", False, False),
    ):
        assert may_be_asked(url, plain_http=False) is tls_alone, url
        assert may_be_asked(url, plain_http=True) is embedded, url
    closed = IssuerKeys(keys.Issuer(issuer.url), clock)
    with pytest.raises(Unavailable):
        find(closed)
    assert issuer.asked == []


GOOD: dict[str, Any] = {
    "database_url": "postgresql://lethe@127.0.0.1/lethe",
    "broker_url": "redis://127.0.0.1/0",
    "oidc_issuer": "https://issuer.example.com/realm",
    "oidc_audience": "lethe",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"oidc_audience": ""},
        {"oidc_issuer": ""},
        {"oidc_issuer": "", "oidc_audience": "", "oidc_jwks_url": "https://issuer.example.com"},
        {"oidc_issuer": "http://issuer.example.com"},
        {"oidc_issuer": "http://127.0.0.1"},
        {"oidc_jwks_url": "http://issuer.example.com/MARKED"},
        {"oidc_scope_claim": ""},
    ],
)
def test_half_an_issuer_is_refused_at_the_start(changed: dict[str, str]) -> None:
    assert Settings(**GOOD).oidc_scope_claim == "scope"
    with pytest.raises(ValidationError) as refused:
        Settings(**{**GOOD, **changed})
    assert "MARKED" not in str(refused.value)
    assert "OIDC" in str(refused.value) or "oidc" in str(refused.value)
