"""An endpoint that is gone, or takes nothing for days, is told nothing more until it is pinged."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update
from sqlalchemy.exc import DBAPIError

from app.db import transaction
from app.tables import Delivery
from app.webhooks import outbox
from app.webhooks.outbox import Message, Outgoing
from app.webhooks.outcomes import PAUSES, Failure
from tests.app.outboxes import claimed, record, send_all
from tests.app.receivers import Receiver, listening
from tests.app.subscribers import CALLBACKS, Subscribers, replay_since, send_until_given_up, told


@pytest.fixture(autouse=True)
def _loopback_over_plain_http(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_MODE", "embedded")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")


@pytest.fixture
def clients(client: TestClient) -> Subscribers:
    return Subscribers(client)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as started:
        yield started


def test_an_endpoint_that_is_gone_is_told_nothing_until_a_ping(
    clients: Subscribers, submit: Callable[..., str]
) -> None:
    with listening(Receiver(status=410)) as receiver:
        made = clients.at(receiver.port)
        place = submit("a")
        send_all()
        assert len(receiver.received) == 1
        shown = clients.get(made["id"])
        assert shown["disabled_at"] is not None
        assert shown["disabled_because"] == "It answered 410 Gone."
        log = clients.deliveries(callback=made["id"])
        assert [(each["state"], each["problem"]) for each in log] == [
            ("given_up", "the callback is disabled"),
            ("given_up", "status 410"),
        ]
        submit("b")
        assert len(clients.deliveries(callback=made["id"])) == 2
        for answer in (clients.replay(log[0]["id"]), replay_since(clients, made["id"])):
            assert (answer.status_code, answer.json()["type"]) == (
                409,
                "urn:lethe:problem:conflict",
            )
        receiver.status = 204
        clients.ping(made["id"])
        send_all()
        assert clients.get(made["id"])["disabled_at"] is None
        answer = replay_since(clients, made["id"])
        assert (answer.status_code, answer.json()) == (202, {"deliveries": 2})
        send_all()
        id_ = place.rpartition("/")[2]
        assert [told(each) for each in receiver.received[-2:]] == [
            ("pending", id_),
            ("nothing_found", id_),
        ]
        assert replay_since(clients, made["id"]).json() == {"deliveries": 0}


def test_an_endpoint_that_takes_nothing_for_days_is_disabled_and_one_that_does_is_not(
    clients: Subscribers,
) -> None:
    with listening(Receiver(status=500)) as receiver:
        made = clients.at(receiver.port)
        failing = clients.ping(made["id"])
        send_until_given_up(len(PAUSES))
        assert clients.get(made["id"])["disabled_at"] is None
        receiver.status = 200
        taken = clients.ping(made["id"])
        send_all()  # the other one pauses
        receiver.status = 500
        send_until_given_up(1)
        states = [clients.delivery(id_)["state"] for id_ in (failing, taken)]
        assert states == ["given_up", "delivered"]
        assert clients.get(made["id"])["disabled_at"] is None
        with transaction() as session:
            session.execute(
                update(Delivery)
                .where(Delivery.id == UUID(taken))
                .values(delivered_at=func.now() - timedelta(days=4))
            )
        clients.replay(failing)
        waiting = clients.ping(made["id"])
        send_until_given_up(len(PAUSES))
        assert clients.get(made["id"])["disabled_at"] is None
        send_until_given_up(1)
        assert "three days" in clients.get(made["id"])["disabled_because"]
        states = [clients.delivery(id_)["state"] for id_ in (failing, waiting)]
        assert states == ["given_up", "given_up"]


def test_senders_that_learn_at_once_that_an_endpoint_is_gone_do_not_stop_each_other(
    clients: Subscribers,
) -> None:
    made = clients.register()
    for _ in range(8):
        clients.ping(made["id"])
    messages = [claimed() for _ in range(8)]
    failed: list[Exception] = []

    def gone(message: Message) -> None:
        try:
            record(message, Failure("status 410", is_final=True))
        except DBAPIError as error:
            failed.append(error)

    threads = [threading.Thread(target=gone, args=[message]) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert clients.get(made["id"])["disabled_at"] is not None
    assert {each["state"] for each in clients.deliveries()} == {"given_up"}
    assert all(len(clients.delivery(str(message.id))["log"]) == 1 for message in messages)


def test_what_was_promised_while_its_endpoint_went_is_given_up_without_an_attempt(
    clients: Subscribers, receiver: Receiver
) -> None:
    made = clients.at(receiver.port)
    clients.http.delete(f"{CALLBACKS}/{made['id']}")
    url = f"http://127.0.0.1:{receiver.port}/"
    late = Outgoing(url, "ping", "{}", callback_id=UUID(made["id"]), client="operator")
    with transaction() as session:
        [id_] = outbox.enqueue_all(session, [late])
    send_all()
    shown = clients.delivery(str(id_))
    assert (shown["state"], shown["problem"]) == ("given_up", "the callback was removed")
    assert (shown["attempts"], shown["log"], receiver.received) == (0, [], [])
    answer = clients.replay(str(id_))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lethe:problem:conflict")
