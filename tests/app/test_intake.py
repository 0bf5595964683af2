"""Deletion requests over HTTP: what is accepted, what is refused, and what is stored of it."""

import json
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from app import queue
from app.db import transaction
from app.deletions import clocks
from app.tables import AuditEntry, DeletionRequest, Erasure, RequestedSample

URL = "/v1/deletion-requests"
JSON = {"Content-Type": "application/json"}


def stored_requests() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(DeletionRequest)) or 0


def test_a_request_is_answered_202_with_where_and_when_to_look(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a", "b", "c"])
    answer = client.post(URL, json={"sample_ids": ["a", "b"], "reference": "case 1"})
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) >= 1
    body = client.get(answer.headers["Location"]).json()
    # Forecasts are for those who look.
    assert body | {"breach_risk": None} == answer.json()
    assert body["status"] == "pending"
    assert body["reference"] == "case 1"
    assert body["regulation"] == "gdpr"
    assert [e["sample_count"] for e in body["erasures"]] == [2]


def test_every_model_that_holds_a_sample_gets_an_erasure(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready("first", ["a", "b"])
    ready("second", ["b", "c"])
    ready("third", ["x"])
    body = client.post(URL, json={"sample_ids": ["a", "b"]}).json()
    assert {e["model"]: e["sample_count"] for e in body["erasures"]} == {"first": 2, "second": 1}


def test_a_request_can_be_limited_to_one_model(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready("first", ["a"])
    ready("second", ["a"])
    body = client.post(URL, json={"sample_ids": ["a"], "model": "second"}).json()
    assert [e["model"] for e in body["erasures"]] == ["second"]
    assert body["model"] == "second"


def test_unknown_samples_get_the_honest_answer_that_nothing_was_found(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a"])
    answer = client.post(URL, json={"sample_ids": ["nobody"]})
    assert answer.status_code == 202
    assert answer.json()["status"] == "nothing_found"
    assert answer.json()["finished_at"] is not None


def test_the_same_key_and_body_give_the_same_request(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a", "b"])
    headers = {"Idempotency-Key": "one"}
    first = client.post(URL, json={"sample_ids": ["a", "b"]}, headers=headers)
    # The order of the samples is no part of what is asked.
    again = client.post(URL, json={"sample_ids": ["b", "a"]}, headers=headers)
    assert again.status_code == 202
    assert again.headers["Location"] == first.headers["Location"]
    assert stored_requests() == 1


def test_the_same_key_with_another_body_is_refused(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a", "b"])
    headers = {"Idempotency-Key": "one"}
    client.post(URL, json={"sample_ids": ["a"]}, headers=headers)
    for body in ({"sample_ids": ["b"]}, {"sample_ids": ["a"], "reason": "other"}):
        answer = client.post(URL, json=body, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:lethe:problem:idempotency-key-reused"
    assert stored_requests() == 1


def test_one_key_sent_many_times_at_once_makes_one_request(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a"])
    locations: list[str] = []

    def send() -> None:
        answer = client.post(URL, json={"sample_ids": ["a"]}, headers={"Idempotency-Key": "k"})
        locations.append(answer.headers["Location"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(locations) == 8
    assert len(set(locations)) == 1
    assert stored_requests() == 1


MARK = "MARKED-sample-ID"
BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "malformed JSON": (b'{"sample_ids": ["' + MARK.encode(), 400),
    "not UTF-8": (b'{"sample_ids": ["\xff"]}', 400),
    "nested too deep": (b'{"sample_ids": ' + b"[" * 100_000, 400),
    "a number too long": (b'{"sample_ids": [' + b"9" * 10_000 + b"]}", 400),
    "no object": (b'["' + MARK.encode() + b'"]', 422),
    "nothing": (b"", 422),
    "ids missing": (b"{}", 422),
    "no list": (json.dumps({"sample_ids": MARK}).encode(), 422),
    "a number as an id": (b'{"sample_ids": [7]}', 422),
    "no ids": (b'{"sample_ids": []}', 422),
    "10,001 ids": (json.dumps({"sample_ids": [f"{MARK}{i}" for i in range(10_001)]}).encode(), 422),
    "an empty id": (b'{"sample_ids": [""]}', 422),
    "257 bytes": (json.dumps({"sample_ids": [MARK + "x" * 241]}).encode(), 422),
    "257 bytes in UTF-8": (json.dumps({"sample_ids": ["ä" * 128 + "x"]}).encode(), 422),
    "NUL in an id": (json.dumps({"sample_ids": [MARK + "\0"]}).encode(), 422),
    "a lone surrogate": (b'{"sample_ids": ["MARKED-sample-ID\\ud800"]}', 422),
    "a repeated id": (json.dumps({"sample_ids": [MARK, MARK]}).encode(), 422),
    "an unknown field": (json.dumps({"sample_ids": ["a"], MARK: 1}).encode(), 422),
    "an unknown model": (json.dumps({"sample_ids": ["a"], "model": "none"}).encode(), 422),
    "a name no model can have": (json.dumps({"sample_ids": ["a"], "model": "/x"}).encode(), 422),
    "an unknown regulation": (json.dumps({"sample_ids": ["a"], "regulation": "x"}).encode(), 422),
    "NUL in a reason": (json.dumps({"sample_ids": ["a"], "reason": "\0"}).encode(), 422),
    "a long reference": (json.dumps({"sample_ids": ["a"], "reference": "x" * 257}).encode(), 422),
}


@pytest.mark.parametrize(("content", "status"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_input_is_refused_precisely_and_nothing_is_stored_or_quoted(
    capfd: pytest.CaptureFixture[str],
    client: TestClient,
    ready: Callable[..., Any],
    content: bytes,
    status: int,
) -> None:
    ready(samples=["a"])
    answer = client.post(URL, content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:lethe:problem:")
    assert problem["detail"]
    assert MARK not in answer.text
    assert MARK not in "".join(capfd.readouterr())
    assert stored_requests() == 0


def test_the_largest_request_allowed_is_accepted(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a"])
    ids = [f"{i:05}" + "ä" * 125 + "x" for i in range(10_000)]
    assert len(ids[0].encode()) == 256
    answer = client.post(URL, json={"sample_ids": ids})
    assert answer.status_code == 202
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(RequestedSample)) == 10_000


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_whether_announced_or_not(
    client: TestClient, announced: bool
) -> None:
    large = b'{"sample_ids": ["' + b"x" * (9 * 1024 * 1024) + b'"]}'
    content = large if announced else iter([large[:5_000_000], large[5_000_000:]])
    answer = client.post(URL, content=content, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:lethe:problem:content-too-large"
    assert stored_requests() == 0


def test_a_commit_that_fails_is_no_promise(client: TestClient, ready: Callable[..., Any]) -> None:
    ready(samples=["a"])
    with transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'at commit'; END $$"
            )
        )
        # Deferred: everything up to the commit itself succeeds.
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON deletion_requests "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    answer = client.post(URL, json={"sample_ids": ["a"]})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert stored_requests() == 0


def test_nobody_is_nudged_before_the_commit(
    client: TestClient, ready: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(samples=["a"])
    seen: Queue[int] = Queue()
    monkeypatch.setattr(queue, "nudge", lambda *_: seen.put(stored_requests()))
    client.post(URL, json={"sample_ids": ["a"]})
    assert seen.get(timeout=30) == 1


def test_a_request_is_accepted_while_the_broker_is_away(
    client: TestClient, ready: Callable[..., Any], reread: Callable[[str, str], None]
) -> None:
    ready(samples=["a"])
    reread("LETHE_BROKER_URL", "redis://127.0.0.1:1/0")
    assert client.post(URL, json={"sample_ids": ["a"]}).status_code == 202
    assert client.get("/readyz").json()["status"] == "degraded"


def test_a_request_is_refused_with_503_while_the_database_is_away(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://x:y@127.0.0.1:1/none")
    answer = client.post(URL, json={"sample_ids": ["a"]})
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:lethe:problem:unavailable"
    assert client.get("/readyz").status_code == 503


def test_a_stored_request_holds_digests_and_no_ids(
    client: TestClient, ready: Callable[..., Any], digest: Callable[[str], bytes]
) -> None:
    ready(samples=[MARK])
    client.post(URL, json={"sample_ids": [MARK]}, headers={"Idempotency-Key": MARK})
    with transaction() as session:
        assert session.scalars(select(RequestedSample.sample_digest)).all() == [digest(MARK)]
        payloads = session.scalars(select(AuditEntry.payload)).all()
        assert payloads
        assert not [p for p in payloads if MARK in p or digest(MARK).hex() in p]
        assert session.scalar(select(func.count()).select_from(Erasure)) == 1


@pytest.mark.parametrize(
    ("received", "due"),
    [("2026-01-31", "2026-02-28"), ("2028-01-31", "2028-02-29"), ("2026-11-21", "2026-12-21")],
)
def test_the_gdpr_clock_is_one_calendar_month(received: str, due: str) -> None:
    from datetime import datetime

    at = datetime.fromisoformat(received + "T12:00:00+00:00")
    assert clocks.due_at(clocks.Regulation.GDPR, at) == datetime.fromisoformat(
        due + "T12:00:00+00:00"
    )
