"""Who gets what by OpenDSR, in which form, and what is kept of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.scopes import Scope
from app.tables import DeletionRequest, SubjectRequest
from tests.app import working
from tests.app.controllers import (
    BASE,
    DOMAIN,
    MARK,
    Controller,
    Reread,
    asking,
    set_up,
)
from tests.app.working import NOW
from tests.chaos.checker import bytes_written

Ready = Callable[..., UUID]


OPEN = ("discovery", "certificate", "status")


@pytest.fixture
def controller(
    reread: Reread, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Controller]:
    with set_up(reread, tmp_path):
        yield Controller(request.getfixturevalue("client"))


def stored() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(DeletionRequest)) or 0


def test_a_request_is_its_own_controllers_alone(controller: Controller, ready: Ready) -> None:
    ready()
    body = asking("a")
    shop, other = controller.other("shop"), controller.other("other")
    assert shop.ask(body)["controller_id"] == "shop"
    id_, nobodys = body["subject_request_id"], str(uuid4())
    for stranger in (other, controller):
        assert stranger.look(id_, 404) == stranger.look(nobodys, 404)
        assert stranger.cancel(id_, 404) == stranger.cancel(nobodys, 404)
    # The same id is another request where another controller made it.
    assert other.ask(asking("b", subject_request_id=id_))["controller_id"] == "other"
    other.cancel(id_)
    assert shop.look(id_)["request_status"] == "pending"
    assert other.look(id_)["request_status"] == "cancelled"


def test_each_route_needs_its_scope(controller: Controller) -> None:
    opened_by = {
        "POST": {Scope.SUBMIT},
        "GET": {Scope.READ, Scope.DECIDE, Scope.AUDIT, Scope.OPS},
        "DELETE": {Scope.SUBMIT, Scope.DECIDE},
    }
    for scope in Scope:
        limited = controller.other(f"with-{scope.name.lower()}", scope)
        for verb, scopes in opened_by.items():
            path = "/requests" if verb == "POST" else f"/requests/{uuid4()}"
            answer = limited.request(verb, path, json={})
            assert (answer.status_code == 403) == (scope not in scopes), (verb, scope)
            assert answer.json()["error"]["code"] == answer.status_code


def test_what_everybody_may_know_needs_no_key(controller: Controller) -> None:
    controller.client.headers.pop("Authorization")
    found = controller.request("GET", "/discovery").json()
    assert found == {
        "api_version": "2.0",
        "supported_identities": [
            {"identity_type": "controller_customer_id", "identity_format": "raw"}
        ],
        "supported_subject_request_types": ["erasure"],
        "processor_certificate": f"https://{DOMAIN}/opendsr/2.0/certificate",
    }
    available = {"api_version": "2.0", "status": "available"}
    assert controller.request("GET", "/status").json() == available
    assert controller.request("POST", "/requests", json=asking("a")).status_code == 401


def test_the_status_says_when_nothing_can_be_stored(controller: Controller, reread: Reread) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    answer = controller.request("GET", "/status")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == 503


def test_every_error_is_signed_and_in_opendsrs_form(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError(MARK)

    id_ = str(uuid4())
    asked = {
        401: ("GET", f"/requests/{id_}", {"headers": {"Authorization": "Bearer wrong"}}),
        404: ("GET", f"/requests/{id_}", {}),
        405: ("PUT", "/requests", {}),
        413: ("POST", "/requests", {"content": b" " * (9 * 1024 * 1024)}),
        500: ("POST", "/requests", {"json": asking(MARK)}),
    }
    nowhere = controller.request("GET", "/nowhere")
    assert nowhere.status_code == 404
    monkeypatch.setattr("app.deletions.intake.submit", fail)
    for status, (verb, path, sent) in asked.items():
        answer = controller.request(verb, path, **sent)
        assert answer.status_code == answer.json()["error"]["code"] == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert MARK not in answer.text
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        if status == 405:
            assert answer.headers["Allow"] == "POST"
    assert MARK not in "".join(capfd.readouterr())


def test_the_log_has_the_status_that_was_sent(
    controller: Controller, capfd: pytest.CaptureFixture[str]
) -> None:
    controller.ask({}, 400)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    posted = [line["status"] for line in lines if line.get("method") == "POST"]
    assert posted == [400]


def test_no_identity_is_kept_nor_the_body_that_had_it(
    controller: Controller,
    ready: Ready,
    environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    ready(samples=[MARK], policy=NOW)
    body = asking(MARK, status_callback_urls=["https://controller.example.com/kept"])
    encoded = controller.ask(body)["encoded_request"]
    controller.ask(body)
    working.publish(working.hold(*working.plan()))
    controller.look(body["subject_request_id"])
    rows = bytes_written.dump(environment["LETHE_DATABASE_URL"].replace("+psycopg", ""))
    written = rows + "".join(capfd.readouterr()).encode()
    assert b"https://controller.example.com/kept" in rows  # it would be found
    assert [name for name, text in bytes_written.spellings(MARK).items() if text in written] == []
    # Whole triples of bytes, which stand in base64 wherever they stand in the body.
    chunks = [encoded[place : place + 40] for place in range(0, len(encoded) - 40, 40)]
    assert [chunk for chunk in chunks if chunk.encode() in written] == []


def test_the_description_is_of_what_is_answered(controller: Controller) -> None:
    paths = controller.client.get("/openapi.json").json()["paths"]
    codes = {
        (path.removeprefix(BASE), verb): set(operation["responses"])
        for path, operations in paths.items()
        if path.startswith(BASE + "/")
        for verb, operation in operations.items()
    }
    told = {"400", "401", "403", "404", "429", "503"}
    assert codes == {
        ("/requests", "post"): {"201", "413", *told},
        ("/requests/{subject_request_id}", "get"): {"200", *told},
        ("/requests/{subject_request_id}", "delete"): {"202", *told},
        ("/discovery", "get"): {"200", "404"},
        ("/certificate", "get"): {"200", "404"},
        ("/status", "get"): {"200", "404", "503"},
    }


def test_a_service_that_is_not_set_up_answers_controllers_with_404(client: Any) -> None:
    one = f"/requests/{uuid4()}"
    asked = [("POST", "/requests"), ("GET", one), ("DELETE", one)]
    for verb, path in [*asked, *(("GET", f"/{name}") for name in OPEN)]:
        answer = client.request(verb, BASE + path, json=asking("a"))
        assert answer.status_code == 404
        assert answer.json()["error"]["errors"][0]["reason"] == "not-found"
        assert [name for name in answer.headers if "opendsr" in name.lower()] == []
    assert stored() == 0


def test_a_deletion_request_of_the_services_own_is_no_subject_request(
    controller: Controller, ready: Ready
) -> None:
    ready()
    sent = controller.client.post(
        "/v1/deletion-requests",
        json={"sample_ids": ["a"]},
        headers={"Idempotency-Key": str(id_ := uuid4())},
    )
    assert sent.status_code == 202
    assert "X-OpenDSR-Signature" not in sent.headers
    controller.look(str(id_), 404)
    controller.ask(asking("a", subject_request_id=str(id_)))
    with transaction() as session:
        assert len(session.scalars(select(SubjectRequest)).all()) == 1
    assert stored() == 2
