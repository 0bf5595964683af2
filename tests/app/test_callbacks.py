"""Clients register endpoints, each with a secret that is shown once, and see their own alone."""

import subprocess
import sys
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from app.callbacks import service
from app.db import transaction
from app.errors import Conflict
from app.security import Scope
from tests.app.purges import entries
from tests.app.subscribers import (
    CALLBACKS,
    DELIVERIES,
    PUBLIC,
    Subscribers,
    callback,
    key_of,
)


@pytest.fixture
def clients(client: TestClient) -> Subscribers:
    return Subscribers(client)


def test_an_endpoint_is_registered_and_its_secret_shown_this_once(clients: Subscribers) -> None:
    answer = clients.http.post(CALLBACKS, json={"url": PUBLIC})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"{CALLBACKS}/{made['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(key_of(made["secret"])) == 32
    assert (made["url"], made["events"], made["disabled_at"]) == (PUBLIC, None, None)
    other = clients.register(events=["deletion_request.rejected", "deletion_request.completed"] * 2)
    assert other["events"] == ["deletion_request.completed", "deletion_request.rejected"]
    assert other["secret"] != made["secret"]
    shown, listed = clients.http.get(answer.headers["Location"]), clients.http.get(CALLBACKS)
    assert shown.json() == {key: made[key] for key in made.keys() - {"secret"}}
    assert [each["id"] for each in listed.json()["items"]] == [other["id"], made["id"]]
    assert "whsec_" not in shown.text + listed.text
    assert [each["facts"] for each in entries("callback.registered")] == 2 * [
        {"client": "operator", "by": "operator"}
    ]


NO_CALLBACKS = [
    {},
    {"url": ""},
    {"url": None},
    {"url": "nul \0"},
    {"url": PUBLIC, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    {"url": PUBLIC, "events": []},
    {"url": PUBLIC, "events": ["deletion_request.lost"]},
    {"url": PUBLIC, "events": ["ping"]},
    {"url": "https://a.example/" + "x" * 2_000},
]


def test_what_is_no_callback_is_refused(clients: Subscribers) -> None:
    for body in NO_CALLBACKS:
        assert clients.http.post(CALLBACKS, json=body).status_code == 422, body
    assert clients.http.get(CALLBACKS).json()["items"] == []


OUT_OF_REACH = [
    *("http://shop.example.com/", "ftp://shop.example.com/", "https://shop.example.com/#x"),
    *("https://user:MARKED@shop.example.com/", "https://shop.example.com:22/"),
    *("https://127.0.0.1/", "https://0177.0.0.1/", "https://2130706433/", "https://[::1]/"),
    *("https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://10.1.2.3/"),
    *("https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b:1::7f00:1]/", "https://[fd00::1]/"),
    *("https://169.254.169.254/latest/meta-data/MARKED", "https://100.100.100.200/"),
    *("https://[fd00:ec2::254]/", "https://[2002:7f00:1::]/", "https://0.0.0.0/"),
]


def test_nobody_has_a_message_sent_to_where_only_this_service_can_reach(
    clients: Subscribers,
) -> None:
    for url in OUT_OF_REACH:
        answer = clients.http.post(CALLBACKS, json={"url": url})
        assert answer.status_code == 422, url
        assert answer.json()["type"] == "urn:lethe:problem:address-refused"
        assert url.split("/")[2] not in answer.text
        assert "MARKED" not in answer.text
    assert clients.http.get(CALLBACKS).json()["items"] == []
    clients.register("https://1.1.1.1/")


def test_a_client_has_a_bounded_number_of_callbacks_however_many_it_asks_for_at_once(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST", 3)
    refused: list[Conflict] = []

    def register(client: str = "shop") -> None:
        try:
            with transaction() as session:
                service.register(session, client, PUBLIC, None)
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=register) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with transaction() as session:
        held = service.browse(session, "shop", None, 50).rows
    assert (len(held), len(refused)) == (3, 3)
    register("desk")
    with transaction() as session:
        service.remove(session, held[0].id, "shop", "shop")
    register()
    assert len(refused) == 3


def test_a_client_sees_changes_and_removes_its_own_alone(clients: Subscribers) -> None:
    with clients.acting("shop", Scope.SUBMIT):
        mine = clients.register()["id"]
        ping = clients.ping(mine)
    unknown = uuid4()
    since = {"since": "2026-01-01T00:00:00Z"}
    calls = [
        ("GET", CALLBACKS + "/{}", None, mine),
        ("DELETE", CALLBACKS + "/{}", None, mine),
        ("POST", CALLBACKS + "/{}/rotate", None, mine),
        ("POST", CALLBACKS + "/{}/ping", None, mine),
        ("POST", CALLBACKS + "/{}/replay", since, mine),
        ("GET", DELIVERIES + "/{}", None, ping),
        ("POST", DELIVERIES + "/{}/replay", None, ping),
    ]
    secret = callback(mine).secret
    with clients.acting("desk", Scope.SUBMIT):
        for verb, url, body, id_ in calls:
            foreign = clients.http.request(verb, url.format(id_), json=body)
            nobodys = clients.http.request(verb, url.format(unknown), json=body)
            assert (foreign.status_code, foreign.json()) == (404, nobodys.json()), url
        assert clients.http.get(CALLBACKS).json()["items"] == []
        for query in ({}, {"callback": mine}):
            assert clients.deliveries(**query) == []
    assert (callback(mine).secret, callback(mine).removed_at) == (secret, None)
    for scopes in ([], [Scope.READ, Scope.DECIDE, Scope.MODELS, Scope.AUDIT]):
        with clients.acting("shop", *scopes):
            assert {
                clients.http.request(verb, url.format(id_), json=body).status_code
                for verb, url, body, id_ in calls
            } == {403}
    with clients.acting("pager", Scope.OPS):
        [seen] = clients.http.get(CALLBACKS).json()["items"]
        assert (seen["id"], seen["client"]) == (mine, "shop")
    with clients.acting("shop", Scope.SUBMIT):
        answers = [
            clients.http.request(verb, url.format(id_), json=body).status_code
            for verb, url, body, id_ in (*calls[2:], *calls[:2], *calls[:2])
        ]
        assert answers == [201, 202, 202, 200, 202, 200, 204, 404, 404]


def test_a_removed_endpoint_is_told_nothing_more(
    clients: Subscribers, submit: Callable[..., str]
) -> None:
    mine = clients.register()["id"]
    submit("a")
    open_before = clients.deliveries(callback=mine, state="open")
    assert len(open_before) == 2  # pending, nothing_found
    assert clients.http.delete(f"{CALLBACKS}/{mine}").status_code == 204
    submit("b")
    log = clients.deliveries(callback=mine)
    assert [each["id"] for each in log] == [each["id"] for each in open_before]
    assert {(each["state"], each["problem"]) for each in log} == {
        ("given_up", "the callback was removed")
    }
    row = callback(mine)
    assert (row.secret, row.former_secret) == (None, None)
    assert [each["facts"]["by"] for each in entries("callback.removed")] == ["operator"]


@pytest.mark.parametrize("program", ["app.main", "workers.tasks"])
def test_each_program_that_moves_requests_tells_all_who_are_to_be_told(
    environment: dict[str, str], program: str
) -> None:
    code = (
        f"import {program}; from app.callbacks import announcing; from app.webhooks import signers;"
        "from app.tables import Signer;"
        "print(set(signers._ways) == set(Signer), len(announcing._others))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "1"], done.stderr
