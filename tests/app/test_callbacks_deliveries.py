"""What was sent is on record, attempt by attempt, and can be sent again on demand."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.security import Scope
from app.webhooks.outcomes import PAUSES
from tests.app.outboxes import send_all
from tests.app.recalls import Office, make_due
from tests.app.receivers import Receiver, listening
from tests.app.subscribers import (
    CALLBACKS,
    DELIVERIES,
    SINCE,
    Subscribers,
    promised,
    replay_since,
    send_until_given_up,
    signed_by,
)
from tests.app.working import NOW


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


def test_each_attempt_is_on_record_with_what_was_answered(
    clients: Subscribers, receiver: Receiver
) -> None:
    made = clients.at(receiver.port)
    began = datetime.now(UTC)
    id_ = clients.ping(made["id"])
    assert clients.delivery(id_)["log"] == []
    for status in (503, 302, 200):
        receiver.status = status
        make_due()
        send_all()
    shown = clients.delivery(id_)
    assert [(x["number"], x["status"], x["problem"]) for x in shown["log"]] == [
        (1, 503, "status 503"),
        (2, 302, "status 302"),
        (3, 200, None),
    ]
    times = [datetime.fromisoformat(each["at"]) for each in shown["log"]]
    assert began < times[0] < times[1] < times[2] < datetime.now(UTC)
    assert all(0 < each["seconds"] < 20 for each in shown["log"])
    assert (shown["state"], shown["attempts"], shown["problem"]) == ("delivered", 3, None)
    assert shown["payload"].encode() == receiver.received[-1].body
    assert shown["next_attempt_at"] is None
    nobody = clients.ping(clients.register("http://127.0.0.9:9999/")["id"])
    send_all()
    [only] = clients.delivery(nobody)["log"]
    assert (only["status"], only["problem"]) == (None, "no connection")
    assert clients.delivery(nobody)["next_attempt_at"] is not None


def test_the_log_is_read_by_endpoint_request_and_state_in_pages(
    clients: Subscribers, receiver: Receiver, submit: Callable[..., str]
) -> None:
    working, broken = clients.at(receiver.port)["id"], clients.register()["id"]
    places = [submit("a"), submit("b")]
    send_all()
    id_ = places[0].rpartition("/")[2]
    assert [told_of(each) for each in clients.deliveries(request=id_, callback=working)] == [
        ("deletion_request.nothing_found", id_),
        ("deletion_request.pending", id_),
    ]
    states = {"delivered": 4, "open": 4, "given_up": 0}
    assert {state: len(clients.deliveries(state=state)) for state in states} == states
    assert {each["callback"] for each in clients.deliveries(state="open")} == {broken}
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = clients.http.get("/v1/deliveries", params=query).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert (
        seen
        == [str(row.id) for row in sorted(promised(), key=lambda x: (x.created_at, x.id))][::-1]
    )
    assert len(set(seen)) == 8


def told_of(each: Any) -> tuple[str, str]:
    return each["event"], each["request"]


def test_a_message_that_was_taken_is_sent_again_with_its_id_and_a_new_timestamp(
    clients: Subscribers, receiver: Receiver
) -> None:
    made = clients.at(receiver.port)
    id_ = clients.ping(made["id"])
    send_all()
    answer = clients.replay(id_)
    assert (answer.status_code, answer.json()["state"]) == (202, "open")
    assert answer.headers["Location"] == f"{DELIVERIES}/{id_}"
    send_all()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == id_
    assert first.body == second.body
    assert signed_by(made["secret"], second)
    shown = clients.delivery(id_)
    assert (shown["state"], [each["number"] for each in shown["log"]]) == ("delivered", [1, 2])
    for got, each in zip(receiver.received, shown["log"], strict=True):
        at = datetime.fromisoformat(each["at"]).timestamp()
        assert got.headers["webhook-timestamp"] == str(int(at))


def test_a_replay_has_all_its_attempts_and_pauses_anew(clients: Subscribers) -> None:
    with listening(Receiver(status=500)) as receiver:
        made = clients.at(receiver.port)
        id_ = clients.ping(made["id"])
        send_until_given_up()
        assert clients.delivery(id_)["state"] == "given_up"
        # It takes a ping, so that it is in use again, and stays so.
        receiver.status = 200
        clients.ping(made["id"])
        send_all()
        receiver.status = 500
        assert clients.replay(id_).status_code == 202
        before = datetime.now(UTC)
        send_all()
        wait = datetime.fromisoformat(clients.delivery(id_)["next_attempt_at"]) - before
        assert PAUSES[0] <= wait <= 1.2 * PAUSES[0] + timedelta(seconds=10)
        send_until_given_up(len(PAUSES) - 1)
        assert clients.delivery(id_)["state"] == "open"
        send_until_given_up(1)
        again = clients.delivery(id_)
        assert (again["state"], len(again["log"])) == ("given_up", 2 * (len(PAUSES) + 1))
        assert clients.get(made["id"])["disabled_at"] is None


def test_a_message_in_a_pause_is_sent_at_once_when_that_is_asked_for(
    clients: Subscribers,
) -> None:
    with listening(Receiver(status=500)) as receiver:
        id_ = clients.ping(clients.at(receiver.port)["id"])
        send_all()
        send_all()
        assert len(receiver.received) == 1
        receiver.status = 200
        assert clients.replay(id_).status_code == 202
        send_all()
        assert len(receiver.received) == 2


def test_since_when_to_replay_is_a_time_with_a_zone(clients: Subscribers) -> None:
    where = f"{CALLBACKS}/{clients.register()['id']}/replay"
    numbers = (0, 1e9, "1767225600", True, None)
    for since in (*numbers, "2026-01-01", "2026-01-01T00:00:00", "soon"):
        assert clients.http.post(where, json={"since": since}).status_code == 422, since
    assert clients.http.post(where, json={"since": SINCE}).status_code == 202


def test_a_replay_begins_with_the_moment_that_is_named(clients: Subscribers) -> None:
    with listening(Receiver(status=410)) as receiver:
        made, other = clients.at(receiver.port), clients.at(receiver.port)
        for id_ in (made["id"], made["id"], other["id"]):
            clients.ping(id_)
            send_all()
        receiver.status = 200
        clients.ping(made["id"])
        send_all()
    second, first = clients.deliveries(callback=made["id"], state="given_up")
    late = replay_since(clients, made["id"], second["created_at"])
    assert late.json() == {"deliveries": 1}
    assert [each["id"] for each in clients.deliveries(state="open")] == [second["id"]]
    assert replay_since(clients, made["id"], first["created_at"]).json() == {"deliveries": 1}
    assert len(clients.deliveries(callback=other["id"], state="given_up")) == 1


def test_notices_are_the_operators_and_go_again_while_their_recipient_is_there(
    clients: Subscribers, receiver: Receiver, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    office = Office(clients.http)
    recipient = office.register("web", f"http://127.0.0.1:{receiver.port}/")
    office.forget("a")
    send_all()
    [sent] = [each for each in clients.deliveries() if each["notice"]]
    with clients.acting("operator", Scope.SUBMIT):
        assert clients.deliveries() == []
        assert clients.replay(sent["id"]).status_code == 404
    assert clients.replay(sent["id"]).status_code == 202
    send_all()
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert signed_by(recipient["secret"], second)
    assert promised()[0].secret is None
    clients.http.delete(f"/v1/models/digits/recipients/{recipient['id']}")
    assert clients.replay(sent["id"]).status_code == 409
