"""What was decided stands in receipts and exports, and a receipt that says otherwise is refused."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from fastapi.testclient import TestClient
from sqlalchemy import text

from app import keys
from app.db import transaction
from app.receipts.statement import encode
from lethe.verify.dsse import PAYLOAD_TYPE, pae
from lethe.verify.reasons import NotProven
from lethe.verify.receipt import Verified, verify_receipt
from lethe.verify.report import describe_receipt
from tests.app.office import REQUESTS, Office, at
from tests.app.working import NOW, fail, hold, plan, publish

PERIOD = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}


@pytest.fixture
def office(client: TestClient) -> Office:
    return Office(client)


def receipt(office: Office, request: str) -> bytes:
    answer = office.http.get(f"{REQUESTS}/{request}/receipt")
    assert answer.status_code == 200, answer.text
    return answer.content


def verified(content: bytes) -> Verified:
    return verify_receipt(content, [keys.log_key().public])


def stated(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(content)["envelope"]["payload"]))
    return found


def signed_anew(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a receipt with another statement, as the service itself would sign it."""
    found, told = json.loads(content), stated(content)
    change(told["predicate"]["request"])
    payload = rfc8785.dumps(told)
    private: Any = keys.log_key().private
    found["envelope"]["payload"] = encode(payload)
    found["envelope"]["signatures"][0]["sig"] = encode(private.sign(pae(PAYLOAD_TYPE, payload)))
    return rfc8785.dumps(found)


def test_a_rejection_has_a_receipt_with_its_reason_and_without_its_note(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    office.decide(request, "reject", reason="outside_jurisdiction", note="MARKED")
    content = receipt(office, request)
    told = stated(content)["predicate"]
    assert told["request"]["status"] == told["erasures"][0]["status"] == "rejected"
    (decision,) = told["request"]["decisions"]
    assert (decision["action"], decision["reason"]) == ("reject", "outside_jurisdiction")
    assert decision["due_at"] is None
    assert b"MARKED" not in content + base64.b64decode(json.loads(content)["envelope"]["payload"])
    words = "\n".join(describe_receipt(verified(content)).proven)
    assert "rejected on" in words
    assert "reject (outside_jurisdiction)" in words


def test_a_held_request_that_is_rejected_has_a_receipt_about_the_log_alone(
    office: Office, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_REVIEW", "manual")
    request = office.ask("a")
    assert office.http.get(f"{REQUESTS}/{request}/receipt").status_code == 409
    office.decide(request, "reject", reason="no_match")
    content = receipt(office, request)
    assert verified(content).statement.request.status == "rejected"
    assert stated(content)["predicate"]["erasures"] == []


def test_a_receipt_has_the_deadline_that_decisions_made_of_the_first_one(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    request, paused = office.ask("a"), office.ask("b")
    first = office.look(request)["due_at"]
    office.decide(request, "extend", reasons="x")
    for action in ("cancel", "reopen"):
        office.decide(request, action)
    office.decide(paused, "pause", ground="identity")
    office.decide(paused, "cancel")
    publish(hold(*plan()))
    found = verified(receipt(office, request))
    assert found.statement.request.due_at == at(office.look(request)["due_at"]) > at(first)
    assert found.arrival.due_at == at(first)
    assert [d.action for d in found.statement.request.decisions] == ["extend", "cancel", "reopen"]
    # Here no decision says so: its clock went on when it ended.
    found = verified(receipt(office, paused))
    assert found.arrival.due_at is not None
    assert found.statement.request.due_at == at(office.look(paused)["due_at"])
    assert found.statement.request.due_at > found.arrival.due_at


def test_a_decision_that_moves_nothing_any_more_leaves_the_receipt_sound(
    office: Office,
    ready: Callable[..., UUID],
    register: Callable[..., UUID],
    reject: Callable[..., None],
) -> None:
    ready("digits", ["a"], NOW)
    late = register("late", NOW)
    done, waiting = office.ask("a"), office.ask("nobody")
    publish(hold(*plan()))
    # Only the model under check could still add to it.
    answer = office.decide(done, "reject", reason="other")
    assert (answer["request"]["status"], answer["too_late"]) == ("completed", ["digits"])
    office.decide(waiting, "cancel")
    reject(late)
    found = verified(receipt(office, done)).statement.request
    assert (found.status, [d.reason for d in found.decisions]) == ("completed", ["other"])
    assert office.decide(done, "reopen")["status"] == "completed"
    assert office.decide(waiting, "reopen")["status"] == "nothing_found"
    for request, status in ((done, "completed"), (waiting, "nothing_found")):
        assert verified(receipt(office, request)).statement.request.status == status


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda request: request.pop("decisions"), "other decisions"),
        (lambda request: request["decisions"].pop(), "other decisions"),
        (lambda request: request["decisions"].reverse(), "other decisions"),
        (lambda request: request["decisions"][-1].update(reason="other"), "other decisions"),
        (lambda request: request["decisions"][0].update(due_at=None), "other decisions"),
        (lambda request: request.update(due_at="2030-01-01T00:00:00Z"), "deadline"),
        (lambda request: request.update(status="cancelled"), "another status"),
        (lambda request: request.update(decisions=[]), "left out"),
        (lambda request: request["decisions"][0].update(by="x"), "members"),
    ],
)
def test_a_receipt_that_tells_of_other_decisions_is_refused(
    office: Office, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    request = told_of(office)
    content = receipt(office, request)
    verified(signed_anew(content, lambda _: None))
    with pytest.raises(NotProven, match=words):
        verified(signed_anew(content, change))


def told_of(office: Office) -> str:
    """Return a request with several decisions, made without any model: quick."""
    with transaction() as session:
        # A model under check, so that the request stays open.
        session.execute(
            text(
                "INSERT INTO registered_models (id, name, recipe, checkpoint_digest, policy, "
                "status, check_attempts, created_at) VALUES (gen_random_uuid(), 'x', 'x', 'x', "
                "'{}', 'checking', 0, now() - interval '1 day')"
            )
        )
    request = office.ask("a")
    office.decide(request, "extend", reasons="x")
    office.decide(request, "reject", reason="no_match")
    return request


def test_records_have_the_basis_of_a_denial_and_what_became_of_the_clock(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b", "c"], NOW)
    denied, stuck = office.ask("a"), office.ask("b", regulation="ccpa")
    fail(hold(*plan()))
    office.decide(denied, "extend", reasons="MARKED")
    paused_at = at(office.decide(denied, "pause", ground="identity")["paused_at"])
    ended = office.decide(denied, "reject", reason="suspected_fraud", note="MARKED")["request"]
    office.decide(stuck, "confirm")
    answer = office.http.get("/v1/exports/requests", params=PERIOD)
    assert "MARKED" not in answer.text
    first, second = (json.loads(line) for line in answer.text.splitlines())
    assert (first["response"], first["denial_basis"]) == ("denied", "suspected_fraud")
    assert first["extended_at"] == ended["extended_at"].replace("Z", "+00:00")
    stood = (at(ended["finished_at"]) - paused_at) / timedelta(days=1)
    assert first["paused_days"] == round(stood, 3)
    assert (first["confirmed_at"], first["overdue"]) == (None, False)
    assert second["confirmed_at"] is not None
    assert second["denial_basis"] == "digits: no chance"
    years = office.http.get("/v1/exports/summary", params=PERIOD).json()["years"]
    assert [(y["regulation"], y["denied"], y["open"]) for y in years] == [
        ("ccpa", 0, 1),
        ("gdpr", 1, 0),
    ]


def test_a_deadline_does_not_pass_in_the_records_while_its_clock_stands_still(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    paused, running = office.ask("a"), office.ask("b")
    office.decide(paused, "pause", ground="identity")
    with transaction() as session:
        session.execute(text("UPDATE deletion_requests SET due_at = now() - interval '1 second'"))
        session.execute(
            text(
                "UPDATE deletion_requests SET paused_at = now() - interval '36 hours' "
                "WHERE paused_at IS NOT NULL"
            )
        )
    lines = office.http.get("/v1/exports/requests", params=PERIOD).text.splitlines()
    found = {record["request"]: record for record in map(json.loads, lines)}
    assert (found[paused]["overdue"], found[running]["overdue"]) == (False, True)
    assert (found[paused]["paused_days"], found[running]["paused_days"]) == (1.5, 0.0)
    (year,) = office.http.get("/v1/exports/summary", params=PERIOD).json()["years"]
    assert year["overdue"] == 1
