"""Requests that come at the same time share a transaction, and nothing else."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from app.db import transaction
from app.deletions import gathering as module
from app.deletions.clocks import Regulation
from app.deletions.gathering import WRITERS, Gathering
from app.deletions.intake import Taken
from app.deletions.nudging import Nudges
from app.deletions.submissions import Asked, Submission, take_in
from app.errors import IdempotencyKeyReused, Unavailable, UnknownModel
from app.tables import AuditEntry, DeletionRequest
from tests.conftest import ID_KEY

pytestmark = pytest.mark.usefixtures("environment")

Outcome = tuple[str | None, bool]


def asked(name: str, key: str | None = None, samples: int = 1, model: str | None = None) -> Asked:
    ids = [f"{name}-{n}" for n in range(samples)]
    submission = Submission(ids, model, Regulation.GDPR, name, None)
    return Asked("client", take_in(submission, ID_KEY.encode()), key and key.encode())


def describe(_: Session, taken: Sequence[Taken]) -> list[Outcome]:
    return [(one.request.reference, one.is_new) for one in taken]


def take(*several: Asked) -> list[Outcome | BaseException]:
    """Have them come at the same time; return what came of each."""

    async def all_of_them() -> list[Outcome | BaseException]:
        gathering = Gathering(describe)
        return await asyncio.gather(
            *(gathering.take(one) for one in several), return_exceptions=True
        )

    return asyncio.run(all_of_them())


def transactions() -> list[int]:
    """How many requests each transaction stored, fewest first."""
    with transaction() as session:
        sizes = session.scalars(
            text("SELECT count(*) FROM deletion_requests GROUP BY xmin::text")
        ).all()
    return sorted(sizes)


def test_what_comes_at_the_same_time_is_stored_together_and_each_gets_its_own_answer() -> None:
    names = [f"r{n}" for n in range(40)]
    assert take(*map(asked, names)) == [(name, True) for name in names]
    assert sum(transactions()) == 40
    assert len(transactions()) <= WRITERS + 1


def test_what_comes_one_after_another_is_not_kept_waiting_for_company() -> None:
    for n in range(3):
        assert take(asked(f"r{n}")) == [(f"r{n}", True)]
    assert transactions() == [1, 1, 1]


def test_who_comes_back_alone_is_not_kept_waiting_for_the_others() -> None:
    async def come() -> list[Outcome]:
        gathering = Gathering(describe)
        await asyncio.gather(*(gathering.take(asked(f"r{n}")) for n in range(8)))
        async with asyncio.timeout(20):
            return [await gathering.take(asked(f"s{n}")) for n in range(3)]

    assert asyncio.run(come()) == [(f"s{n}", True) for n in range(3)]
    assert transactions() == [1, 1, 1, 8]


def test_a_plan_is_asked_for_after_what_is_new_and_not_after_repetitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: list[int] = []
    monkeypatch.setattr(Nudges, "want", lambda _: wanted.append(sum(transactions())))
    monkeypatch.setattr(Nudges, "send", lambda _: None)
    several = [asked(f"r{n}", key=f"k{n}") for n in range(20)]
    take(*several)
    assert len(wanted) == len(transactions())
    assert wanted[-1] == 20
    wanted.clear()
    assert take(*several) == [(f"r{n}", False) for n in range(20)]
    assert not wanted


def test_each_request_of_a_transaction_has_its_own_entry_in_the_log() -> None:
    take(*(asked(f"r{n}") for n in range(12)))
    with transaction() as session:
        rows = session.execute(select(AuditEntry.subject, AuditEntry.event).order_by(AuditEntry.id))
        events: dict[Any, list[str]] = {}
        for subject, event in rows:
            events.setdefault(subject, []).append(event)
        ids = set(session.scalars(select(DeletionRequest.id)))
    assert events.keys() == ids
    assert {tuple(found) for found in events.values()} == {
        ("deletion_request.pending", "deletion_request.nothing_found")
    }


def test_equal_keys_at_the_same_time_are_one_request() -> None:
    outcomes = take(*(asked("same", key="k") for _ in range(10)))
    assert Counter(outcomes) == {("same", True): 1, ("same", False): 9}
    assert transactions() == [1]


def test_equal_keys_with_other_bodies_at_the_same_time_are_refused_but_for_one() -> None:
    outcomes = take(*(asked(f"r{n}", key="k") for n in range(6)))
    stored = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    assert len(stored) == 1
    assert [type(one) for one in outcomes if one not in stored] == [IdempotencyKeyReused] * 5
    assert transactions() == [1]


def test_who_is_refused_is_refused_alone(ready: Callable[..., Any]) -> None:
    ready("digits", ["x"])
    outcomes = take(asked("a"), asked("b", model="none"), asked("c", model="digits"))
    assert outcomes[::2] == [("a", True), ("c", True)]
    assert isinstance(outcomes[1], UnknownModel)


def poison(when: str, message: str) -> None:
    with transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF NEW.reference = 'poison' THEN RAISE EXCEPTION {message}; END IF; "
                "RETURN NEW; END $$"
            )
        )
        session.execute(
            text(
                f"CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON deletion_requests {when} "
                "FOR EACH ROW EXECUTE FUNCTION poison()"
            )
        )


@pytest.mark.parametrize("when", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["insert", "commit"])
def test_who_breaks_a_transaction_fails_alone(when: str) -> None:
    poison(when, "'no'")
    outcomes = take(*(asked(name) for name in ("a", "b", "poison", "c")))
    assert isinstance(outcomes.pop(2), DBAPIError)
    assert outcomes == [("a", True), ("b", True), ("c", True)]
    assert sum(transactions()) == 3


def test_a_database_that_ends_is_not_asked_again_for_each_of_them() -> None:
    # As PostgreSQL says it when it is shut down.
    poison("", "USING ERRCODE = '57P01'")
    outcomes = take(*(asked(name) for name in ("a", "b", "poison", "c")))
    assert {type(outcome) for outcome in outcomes[1:]} == {OperationalError}
    assert transactions() in ([], [1])  # the first one may have been alone


def test_nobody_is_told_anything_while_the_database_is_away(
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://x:y@127.0.0.1:1/none")
    outcomes = take(asked("a"), asked("b"))
    assert [type(outcome) for outcome in outcomes] == [OperationalError] * 2


def test_a_transaction_takes_a_bounded_number_of_requests_and_of_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_TOGETHER", 4)
    monkeypatch.setattr(module, "MOST_SAMPLES_TOGETHER", 10)
    take(*(asked(f"r{n}") for n in range(10)))
    assert transactions() == [2, 4, 4]
    take(*(asked(f"s{n}", samples=5) for n in range(4)), asked("large", samples=30))
    assert transactions() == [1, 2, 2, 2, 4, 4]


def test_who_comes_when_too_much_waits_is_turned_away_and_may_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLES_WAITING", 20)

    async def come() -> list[Outcome | BaseException]:
        gathering = Gathering(describe)
        several = [asked(f"r{n}", samples=10) for n in range(4)]
        outcomes = await asyncio.gather(
            *(gathering.take(one) for one in several), return_exceptions=True
        )
        return [*outcomes, await gathering.take(several[3])]

    *first, turned, refused, again = asyncio.run(come())
    assert first == [("r0", True), ("r1", True)]
    assert {type(turned), type(refused)} == {Unavailable}
    assert again == ("r3", True)
    assert sum(transactions()) == 3


def test_who_goes_away_leaves_the_others_their_answers() -> None:
    async def come() -> list[Outcome | BaseException]:
        gathering = Gathering(describe)
        tasks = [asyncio.create_task(gathering.take(asked(f"r{n}"))) for n in range(5)]
        await asyncio.sleep(0)  # one turn: all of them wait now
        tasks[2].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(come())
    assert isinstance(outcomes.pop(2), asyncio.CancelledError)
    assert outcomes == [(f"r{n}", True) for n in (0, 1, 3, 4)]


def test_many_clients_at_once_over_http_get_what_they_asked_for(
    client: Any, ready: Callable[..., Any]
) -> None:
    ready(samples=[f"known-{n}" for n in range(0, 24, 2)])
    answers: dict[int, Any] = {}

    def send(n: int) -> None:
        body = {"sample_ids": [f"known-{n}"], "reference": f"case-{n}"}
        answers[n] = client.post("/v1/deletion-requests", json=body)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, answer in answers.items():
        assert answer.status_code == 202
        body = answer.json()
        assert body["reference"] == f"case-{n}"
        assert body["status"] == ("nothing_found" if n % 2 else "pending")
        assert answer.headers["Location"].endswith(body["id"])
        assert [erasure["sample_count"] for erasure in body["erasures"]] == [1] * (1 - n % 2)
    assert len(answers) == len({answer.json()["id"] for answer in answers.values()}) == 24
    assert sum(transactions()) == 24
