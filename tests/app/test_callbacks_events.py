"""Each change of a request's status is told to its client's endpoints, in the same transaction."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app import lifecycle
from app.callbacks.events import Event, event_of
from app.db import now, transaction
from app.moves import INITIAL, MOVES
from app.security import Scope
from app.statuses import RequestStatus
from app.tables import DeletionRequest
from app.webhooks import addresses
from tests.app import working
from tests.app.subscribers import PUBLIC, Subscribers, promised
from tests.app.watching import statements
from tests.app.working import NOW

MANY = 300


@pytest.fixture
def clients(client: TestClient) -> Subscribers:
    return Subscribers(client)


def requests(client: str, number: int = 1) -> list[DeletionRequest]:
    return [
        DeletionRequest(
            client=client,
            body_digest=b"",
            regulation="gdpr",
            reference=f"ticket {place}",
            sample_count=2,
            id_key_id="",
            due_at=now(),
        )
        for place in range(number)
    ]


def begin(*clients: str, number: int = 1) -> list[UUID]:
    """Make requests of clients, as the intake does."""
    rows = [row for client in clients for row in requests(client, number)]
    with transaction() as session:
        lifecycle.begin_all(session, rows, {})
        return [row.id for row in rows]


def move(ids: list[UUID], to: str) -> None:
    with transaction() as session:
        assert len(lifecycle.move(session, DeletionRequest, ids, to)) == len(ids)


def told(**of: Any) -> list[tuple[str, str]]:
    """The kinds of the events and the requests that were promised, in order."""
    bodies = [json.loads(row.payload) for row in promised(**of)]
    return [(body["type"].rpartition(".")[2], body["data"]["id"]) for body in bodies]


def test_there_is_an_event_for_each_status_and_no_other() -> None:
    assert {event_of(status) for status in RequestStatus} == set(Event)


def test_a_client_is_told_of_each_step_of_its_request_and_of_no_sample(
    clients: Subscribers, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["MARKED", "b"], NOW)
    made = clients.register()
    body = {"sample_ids": ["MARKED"], "reference": "T-1"}
    asked = clients.http.post("/v1/deletion-requests", json=body).json()
    [job_id] = working.plan()
    working.publish(working.hold(job_id))
    log = promised(callback=made["id"])
    id_ = asked["id"]
    assert told() == [("pending", id_), ("in_progress", id_), ("completed", id_)]
    final = clients.http.get(f"/v1/deletion-requests/{id_}").json()
    last = json.loads(log[-1].payload)
    assert last["type"] == log[-1].event == "deletion_request.completed"
    assert last["data"] == {
        "id": id_,
        "status": "completed",
        "reference": "T-1",
        "sample_count": 1,
        "due_at": final["due_at"],
        "finished_at": final["finished_at"],
        "request": f"/v1/deletion-requests/{id_}",
    }
    times = [datetime.fromisoformat(json.loads(row.payload)["timestamp"]) for row in log]
    assert times == sorted(set(times))
    assert {(row.url, row.host, row.client) for row in log} == {
        (PUBLIC, addresses.host_of(PUBLIC), "operator")
    }
    for row in log:
        assert "MARKED" not in row.payload
        assert digest("MARKED").hex() not in row.payload
    shown = clients.deliveries(request=id_)
    assert [each["event"] for each in reversed(shown)] == [row.event for row in log]


def test_an_endpoint_is_told_of_its_own_clients_requests_and_of_what_it_asked_for(
    clients: Subscribers,
) -> None:
    everything = clients.register()["id"]
    finals = clients.register(events=["deletion_request.cancelled"])["id"]
    mine, other = begin("operator", "shop")
    move([mine, other], RequestStatus.CANCELLED)
    assert told(callback=everything) == [("pending", str(mine)), ("cancelled", str(mine))]
    assert told(callback=finals) == [("cancelled", str(mine))]
    assert len(promised()) == 3


def test_whatever_a_request_becomes_is_told(clients: Subscribers) -> None:
    clients.register()
    for status in RequestStatus:
        [id_] = begin("operator")
        way = way_to(status)
        for step in way[1:]:
            move([id_], step)
        assert [kind for kind, of in told() if of == str(id_)] == list(way)


def way_to(status: RequestStatus) -> tuple[str, ...]:
    """The shortest way to a status from the first one, by the table of allowed moves."""
    moves = MOVES[DeletionRequest]
    ways: list[tuple[str, ...]] = [(INITIAL[DeletionRequest],)]
    for way in ways:
        if way[-1] == status:
            return way
        ways += [(*way, target) for target in sorted(moves[way[-1]]) if target not in way]
    raise AssertionError(status)


def test_a_change_that_is_not_committed_is_not_told(clients: Subscribers) -> None:
    clients.register()
    [id_] = begin("operator")

    def fail() -> None:
        with transaction() as session:
            lifecycle.move(session, DeletionRequest, [id_], RequestStatus.CANCELLED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert told() == [("pending", str(id_))]
    move([id_], RequestStatus.CANCELLED)
    assert told() == [("pending", str(id_)), ("cancelled", str(id_))]


def test_many_changes_are_told_by_as_many_statements_as_one(clients: Subscribers) -> None:
    for _ in range(2):
        clients.register()
    one, many = begin("operator"), begin("operator", number=MANY)
    with statements() as few:
        move(one, RequestStatus.IN_PROGRESS)
    with statements() as as_few:
        move(many, RequestStatus.IN_PROGRESS)
    assert len(as_few) == len(few)
    assert sum("INSERT INTO deliveries" in each for each in as_few) == 1
    log = promised()
    assert len(log) == 2 * 2 * (MANY + 1)
    # One after the other, and each for one request and endpoint.
    assert len({row.position for row in log}) == len(log)
    assert len({row.lane for row in log}) == 2 * (MANY + 1)


def test_a_client_without_callbacks_costs_one_look_in_a_transaction(clients: Subscribers) -> None:
    clients.register()
    with statements() as seen, transaction() as session:
        rows = requests("shop")
        lifecycle.begin_all(session, rows, {})
        for status in (RequestStatus.IN_PROGRESS, RequestStatus.COMPLETED):
            lifecycle.move(session, DeletionRequest, [rows[0].id], status)
    assert sum("callbacks" in each for each in seen) == 1
    assert not any("deliveries" in each for each in seen)
    # It is not remembered: whoever registers meanwhile, in any process, hears of what follows.
    with clients.acting("shop", *Scope):
        clients.register()
    move([rows[0].id], RequestStatus.IN_PROGRESS)
    assert [kind for kind, _ in told()] == ["in_progress"]
