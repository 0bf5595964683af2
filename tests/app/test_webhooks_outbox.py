"""A message is promised with what it reports, and one sender at a time has it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db import transaction
from app.tables import Delivery
from app.webhooks import outbox, outcomes, sending
from app.webhooks.outcomes import PAUSES, Failure
from tests.app.outboxes import AT, SECRET, claim, claimed, enqueue, record
from tests.app.recalls import deliveries, delivery, make_due

pytestmark = pytest.mark.usefixtures("environment")


def test_pauses_grow_over_about_three_days_and_then_it_is_given_up() -> None:
    assert list(PAUSES) == sorted(PAUSES)
    assert (PAUSES[0], PAUSES[-1]) == (timedelta(seconds=5), timedelta(hours=12))
    mean = sum(PAUSES, timedelta(0)) * 1.1
    assert timedelta(days=2.5) < mean < timedelta(days=3.5)
    for attempt, pause in enumerate(PAUSES, 1):
        drawn = {outcomes.pause(attempt) for _ in range(20)}
        assert len(drawn) == 20
        assert all(pause <= each <= 1.2 * pause for each in drawn)
    assert outcomes.pause(1, timedelta(hours=3)) == timedelta(hours=3)
    id_ = enqueue(9)
    for attempt in range(1, len(PAUSES) + 2):
        make_due()
        message = claimed()
        assert message.attempt == attempt
        ended = record(message, Failure("timed out")).ended
        assert ended is (attempt == len(PAUSES) + 1)
        assert (delivery(id_).given_up_at is not None) is ended
    make_due()
    assert claim() is None
    assert delivery(id_).secret is None


def test_a_claimed_message_is_nobody_elses_until_its_sender_must_be_dead() -> None:
    id_ = enqueue(9)
    dead = claimed()
    assert claim() is None
    # The claim outlasts an attempt by far.
    left = delivery(id_).not_before - datetime.now(UTC)
    assert left.total_seconds() > 4 * sending.WHOLE_SECONDS
    make_due()
    alive = claimed()
    assert (dead.id, dead.attempt, alive.attempt) == (alive.id, 1, 2)
    for late in (None, Failure("gone", is_final=True), Failure("timed out")):
        before = delivery(id_)
        record(dead, late)
        after = delivery(id_)
        assert (after.delivered_at, after.given_up_at) == (None, None)
        assert (after.not_before, after.problem) == (before.not_before, before.problem)
    record(alive, None)
    assert delivery(id_).delivered_at is not None
    record(alive, Failure("status 410", is_final=True))
    assert delivery(id_).given_up_at is None


def test_a_delivery_that_was_ended_meanwhile_stays_ended() -> None:
    id_ = enqueue(9)
    message = claimed()
    with transaction() as session:
        row: Any = session.get_one(Delivery, id_)
        row.given_up_at = AT
    record(message, Failure("timed out"))
    record(message, None)
    assert (delivery(id_).delivered_at, delivery(id_).problem) == (None, None)


def test_nothing_is_promised_by_a_transaction_that_fails() -> None:
    def fail() -> None:
        with transaction() as session:
            outbox.enqueue(session, "https://a.example/", SECRET, "test.event", AT, {})
            assert claim() is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (claim(), deliveries()) == (None, [])
