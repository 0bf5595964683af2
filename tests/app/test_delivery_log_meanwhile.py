"""While the log lets go of messages, others remove, replay, read and send some; nobody fails."""

import threading
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update
from structlog.testing import capture_logs

from app.db import transaction
from app.retention import delivery_log
from app.retention.delivery_log import Clearing
from app.tables import Delivery, DeliveryAttempt, Signer
from app.webhooks import outbox, replaying
from app.webhooks.outbox import Outgoing
from tests.app.kept_deliveries import DAY, KEPT, age, left, old, remove, sent
from tests.app.outboxes import AT, SECRET, claim, claimed, record
from tests.app.subscribers import DELIVERIES, Subscribers

pytestmark = pytest.mark.usefixtures("environment")


def test_two_who_remove_at_once_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = old(3)
    monkeypatch.setattr(delivery_log, "BATCH", 2)
    with transaction() as one:
        assert delivery_log.remove(one, KEPT) == 2
        with transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            assert delivery_log.remove(other, KEPT) == 1
        assert left() == set(ids[:2])
    assert left() == set()


def test_many_who_remove_at_once_remove_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    old(40)
    monkeypatch.setattr(delivery_log, "BATCH", 3)
    monkeypatch.setattr(delivery_log, "PASS_SECONDS", 60.0)
    start = threading.Barrier(4)
    removed: list[int] = []

    def clear() -> None:
        start.wait()
        removed.append(Clearing().go_on(KEPT))

    threads = [threading.Thread(target=clear) for _ in range(4)]
    with capture_logs() as said:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [each for each in said if each["log_level"] == "error"] == []
    # Whoever found fewer than a batch has left the rest to those who held it.
    assert (sum(removed), left()) == (40, set())


def test_a_message_that_somebody_is_replaying_stays_and_is_not_waited_for() -> None:
    first, _ = old(2)
    with transaction() as session:
        replaying.replay(session, Delivery.id == first)
        with transaction() as other:
            other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            assert delivery_log.remove(other, KEPT) == 1
    assert left() == {first}
    assert remove() == 0


def test_a_message_whose_late_attempt_is_being_noted_stays_until_that_is_done() -> None:
    (id_,) = old(1)
    with transaction() as session:
        session.add(DeliveryAttempt(delivery_id=id_, number=2, at=AT, seconds=1.0))
        session.flush()
        assert remove() == 0
    assert remove() == 1
    assert left() == set()


def test_a_replay_that_waits_for_the_removal_finds_nothing(client: TestClient) -> None:
    (id_,) = old(1)
    answers: list[int] = []
    waiting = select(func.count()).select_from(text("pg_locks")).where(text("NOT granted"))

    def replay() -> None:
        answers.append(client.post(f"{DELIVERIES}/{id_}/replay").status_code)

    with transaction() as session:
        # So that the replay asks for no secret of a recipient.
        session.execute(update(Delivery).values(signer=Signer.OPENDSR))
    thread = threading.Thread(target=replay)
    with transaction() as session:
        assert delivery_log.remove(session, KEPT) == 1
        thread.start()
        while thread.is_alive():
            with transaction() as watching:
                if watching.scalar(waiting):
                    break
        assert thread.is_alive(), "it waited for nobody"
    thread.join()
    assert answers == [404]


def test_a_removed_message_is_unknown_to_those_who_ask_for_it(client: TestClient) -> None:
    (id_,) = old(1)
    assert client.get(f"{DELIVERIES}/{id_}").status_code == 200
    assert remove() == 1
    for answer in (
        client.get(f"{DELIVERIES}/{id_}"),
        client.post(f"{DELIVERIES}/{id_}/replay"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (
            404,
            "urn:lethe:problem:not-found",
        )


def test_pages_go_on_behind_a_message_that_was_removed(client: TestClient) -> None:
    clients = Subscribers(client)
    first, second, third = (sent() for _ in range(3))
    page = client.get(DELIVERIES, params={"limit": 2}).json()
    assert [each["id"] for each in page["items"]] == [str(third), str(second)]
    # The one that the cursor names.
    age(KEPT + DAY, second)
    assert remove() == 1
    following = clients.deliveries(limit=2, cursor=page["next_cursor"])
    assert [each["id"] for each in following] == [str(first)]


def test_a_lane_keeps_its_order_when_its_earlier_messages_are_gone() -> None:
    lane = uuid4()
    message = Outgoing("http://127.0.0.1:9/", "test.event", "{}", secret=SECRET, lane=lane)
    with transaction() as session:
        first, second, third = outbox.enqueue_all(session, [message] * 3)
    taken = claimed()
    assert taken.id == first
    record(taken, None)
    age(KEPT + DAY, first)
    assert remove() == 1
    with transaction() as session:
        (fourth,) = outbox.enqueue_all(session, [message])
    for id_ in (second, third, fourth):
        taken = claimed()
        assert taken.id == id_
        assert claim() is None
        record(taken, None)
