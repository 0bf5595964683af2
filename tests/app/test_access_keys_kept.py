"""What was found out about a key is kept for seconds, and no longer."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import identities
from app.errors import Unavailable
from app.identities import FRESH_SECONDS, SEEN_SECONDS, Identities
from app.scopes import OPERATOR, Client, Scope
from tests.app.callers import give, revoke
from tests.app.clockwork import Clock
from tests.app.watching import statements

ROOT = "an operator's key of the tests"
ROOT_DIGEST = hashlib.sha256(ROOT.encode()).digest()
SHOP = Client("shop", frozenset({Scope.READ}))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(environment: dict[str, str], clock: Clock) -> Identities:
    return Identities(ROOT_DIGEST, None, clock)


def identify(known: Identities, key: str) -> Client | None:
    return asyncio.run(known.identify(key))


def test_a_revoked_key_works_for_seconds_at_most(known: Identities, clock: Clock) -> None:
    key = give("shop", Scope.READ)
    assert known.fresh(key) is None
    assert identify(known, key) == SHOP
    revoke(key)
    clock.at += FRESH_SECONDS - 0.001
    assert known.fresh(key) == SHOP
    clock.at += 0.001
    assert known.fresh(key) is None
    assert identify(known, key) is None
    assert known.fresh(key) is None
    assert not known.has_seen(key)


def test_a_key_is_kept_no_longer_than_the_operator_is_told() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    assert "Within five seconds it opens nothing" in page
    assert FRESH_SECONDS <= 5


def test_a_kept_key_costs_no_query(known: Identities) -> None:
    key = give("shop", Scope.READ)
    with statements() as asked:
        identify(known, key)
    assert len(asked) > 0
    with statements() as asked:
        assert known.fresh(key) == SHOP
    assert asked == []


def test_a_key_ends_on_time_while_it_is_kept(known: Identities) -> None:
    # The real clock, since it is what a key's end is told by.
    key = give("shop", Scope.READ, expires_at=datetime.now(UTC) + timedelta(seconds=0.5))
    assert identify(known, key) == SHOP
    deadline = time.monotonic() + 10
    while known.fresh(key) is not None:
        assert time.monotonic() < deadline, "it never ended"
    assert identify(known, key) is None


def test_a_key_is_no_stranger_for_an_hour(known: Identities, clock: Clock) -> None:
    key = give("shop", Scope.READ)
    assert not known.has_seen(key)
    identify(known, key)
    clock.at += SEEN_SECONDS - 1
    assert known.has_seen(key)
    clock.at += 1
    assert not known.has_seen(key)


def test_what_is_not_in_order_takes_no_place_of_what_is(
    known: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "MOST_KEPT", 2)
    keys = [give("shop", Scope.READ) for _ in range(3)]
    for key in keys[:2]:
        identify(known, key)
    for number in range(5):
        stranger = f"lethe_{number:032x}_{number:064x}"
        assert identify(known, stranger) is None
    assert [known.has_seen(key) for key in keys] == [True, True, False]
    identify(known, keys[0])
    identify(known, keys[2])
    assert [known.has_seen(key) for key in keys] == [True, False, True]


def test_many_calls_at_once_ask_a_few_times(environment: dict[str, str]) -> None:
    known = Identities(ROOT_DIGEST, None)
    key = give("shop", Scope.READ)

    async def together() -> list[Client | None]:
        return await asyncio.gather(*(known.identify(key) for _ in range(32)))

    with statements() as asked:
        assert asyncio.run(together()) == [SHOP] * 32
    looked = [each for each in asked if each.startswith("SELECT")]
    assert 1 <= len(looked) <= identities.LOOKUPS_AT_ONCE


def test_the_operators_key_is_good_for_everything_and_asks_nobody(known: Identities) -> None:
    with statements() as asked:
        assert identify(known, ROOT) == Client(OPERATOR, frozenset(Scope))
        for wrong in (
            ROOT[:-1],
            ROOT + " ",
            ROOT.upper(),
            hashlib.sha256(ROOT.encode()).hexdigest(),
        ):
            assert identify(known, wrong) is None
    assert asked == []
    # Also one that looks like a client's.
    shaped = f"lethe_{'0' * 32}_{'0' * 64}"
    digest = hashlib.sha256(shaped.encode()).digest()
    assert identify(Identities(digest, None), shaped) == Client(OPERATOR, frozenset(Scope))


def test_a_database_that_is_away_takes_nothing_back(
    known: Identities, clock: Clock, reread: Callable[[str, str], None]
) -> None:
    key = give("shop", Scope.READ)
    identify(known, key)
    clock.at += FRESH_SECONDS
    reread("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable):
        identify(known, key)
    assert known.has_seen(key)
    assert known.fresh(key) is None
