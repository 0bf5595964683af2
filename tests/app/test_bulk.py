"""Many requests in one call: each line is a request of its own, whatever becomes of the others."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from app import queue
from app.db import transaction
from app.deletions import bulk
from app.tables import AuditEntry, DeletionRequest, RequestedSample
from tests.app.bulk_clients import KEY, URL, asking, ndjson, parsed

ONE = "/v1/deletion-requests"
MARK = "MARKED-sample-ID"


@pytest.fixture
def send(client: TestClient) -> Callable[..., list[dict[str, Any]]]:
    """Send lines, or bytes, and return what is answered to them."""

    def make(
        lines: list[Any] | bytes, key: str = "stream", first: int | None = None
    ) -> list[dict[str, Any]]:
        content = lines if isinstance(lines, bytes) else ndjson(lines)
        query = "" if first is None else f"?first_line={first}"
        answer = client.post(URL + query, content=content, headers={"Idempotency-Key": key})
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        return parsed(answer.content)

    return make


def stored() -> dict[str | None, str]:
    """The id of each request that is stored, by its reference."""
    with transaction() as session:
        rows = session.execute(select(DeletionRequest.reference, DeletionRequest.id)).all()
    assert len(rows) == len({reference for reference, _ in rows})
    return {reference: str(id_) for reference, id_ in rows}


def test_each_line_is_stored_and_answered_in_its_order_and_the_last_line_counts_them(
    client: TestClient, send: Callable[..., Any], ready: Callable[..., Any]
) -> None:
    ready(samples=["s-0", "s-2"])
    *answers, last = send(asking(5))
    by_reference = stored()
    assert answers == [
        {"line": n + 1, "status": 202, "id": by_reference[f"s-{n}"], "repeated": False}
        for n in range(5)
    ]
    assert last == {"lines": 5, "accepted": 5, "repeated": 0, "refused": 0}
    found = [client.get(f"{ONE}/{answer['id']}").json()["status"] for answer in answers]
    assert found == ["pending", "nothing_found", "pending", "nothing_found", "nothing_found"]


def test_a_line_is_taken_as_a_single_request_is(
    client: TestClient, send: Callable[..., Any], ready: Callable[..., Any]
) -> None:
    ready("first", ["a", "b"])
    ready("second", ["b"])
    body = {"sample_ids": ["a", "b"], "model": "second", "regulation": "ccpa", "reason": "asked"}
    single = client.post(ONE, json=body).json()
    many = client.get(f"{ONE}/{send([body])[0]['id']}").json()
    for name in ("model", "regulation", "reason", "sample_count", "status", "erasures"):
        assert many[name] == single[name], name
    with transaction() as session:
        entries = [
            json.loads(payload)["event"]
            for payload in session.scalars(
                select(AuditEntry.payload)
                .where(AuditEntry.subject.in_([single["id"], many["id"]]))
                .order_by(AuditEntry.subject, AuditEntry.id)
            )
        ]
    assert entries == ["deletion_request.pending"] * 2


BROKEN: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"sample_ids": ["' + MARK.encode(), "malformed"),
    "not UTF-8": (b'{"sample_ids": ["\xff"]}', "malformed"),
    "nothing": (b"", "malformed"),
    "nested too deep": (b'{"sample_ids": ' + b"[" * 10_000, "malformed"),
    "no object": (b'["' + MARK.encode() + b'"]', "invalid-request"),
    "a lone surrogate": (b'{"sample_ids": ["' + MARK.encode() + b'\\ud800"]}', "malformed"),
    "a repeated id": (json.dumps({"sample_ids": [MARK, MARK]}).encode(), "invalid-request"),
    "an unknown field": (json.dumps({"sample_ids": ["a"], MARK: 1}).encode(), "invalid-request"),
    "an unknown model": (
        json.dumps({"sample_ids": [MARK], "model": "x"}).encode(),
        "unknown-model",
    ),
    "an empty key": (b'{"sample_ids": ["a"], "idempotency_key": ""}', "invalid-request"),
    "too long": (b'{"sample_ids": ["' + b"x" * 13_000 + b'"]}', "content-too-large"),
}


def test_a_broken_line_is_answered_with_its_problem_and_the_others_are_stored(
    capfd: pytest.CaptureFixture[str],
    send: Callable[..., Any],
    reread: Callable[[str, str], None],
) -> None:
    # A line may be as long as the body of a single request.
    reread("LETHE_JSON_BODY_LIMIT", "12000")
    before, after = (ndjson([line]) for line in asking(2))
    content = b"".join(line + b"\n" for line, _ in BROKEN.values())
    first, *refused, second, last = send(before + content + after)
    assert (first["status"], second["status"]) == (202, 202)
    for number, (name, (_, slug)) in enumerate(BROKEN.items(), 2):
        answer = refused[number - 2]
        assert answer["problem"]["type"] == f"urn:lethe:problem:{slug}", name
        assert answer == {"line": number, "problem": answer["problem"]}
        assert answer["problem"]["status"] >= 400
        assert answer["problem"]["detail"]
    assert last == {"lines": len(BROKEN) + 2, "accepted": 2, "repeated": 0, "refused": len(BROKEN)}
    assert set(stored()) == {"s-0", "s-1"}
    assert MARK not in json.dumps(refused) + "".join(capfd.readouterr())


def test_the_last_line_needs_no_end_and_lines_may_end_as_on_windows(
    send: Callable[..., Any],
) -> None:
    answers = send(ndjson(asking(2)).replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert answers[-1]["accepted"] == 2


def test_a_stream_without_lines_is_answered_with_the_count_alone(send: Callable[..., Any]) -> None:
    assert send(b"") == [{"lines": 0, "accepted": 0, "repeated": 0, "refused": 0}]


def test_the_same_stream_again_stores_nothing_and_answers_the_same(
    send: Callable[..., Any],
) -> None:
    *first, _ = send(asking(4))
    *again, last = send(asking(6))
    assert [answer["id"] for answer in again[:4]] == [answer["id"] for answer in first]
    assert [answer["repeated"] for answer in again] == [True] * 4 + [False] * 2
    assert last == {"lines": 6, "accepted": 2, "repeated": 4, "refused": 0}
    assert len(stored()) == 6


def test_another_stream_is_another_wish(send: Callable[..., Any]) -> None:
    send([{"sample_ids": ["a"]}])
    (answer, _) = send([{"sample_ids": ["a"]}], key="other")
    assert not answer["repeated"]


def test_the_same_stream_with_another_line_in_a_place_is_refused_there(
    send: Callable[..., Any],
) -> None:
    send(asking(2))
    answers = send([asking(1)[0], {"sample_ids": ["other"]}])
    assert answers[0]["repeated"]
    assert answers[1]["problem"]["type"] == "urn:lethe:problem:idempotency-key-reused"
    assert len(stored()) == 2


def test_a_line_with_a_key_of_its_own_is_the_single_request_with_that_key(
    client: TestClient, send: Callable[..., Any]
) -> None:
    single = client.post(ONE, json={"sample_ids": ["a"]}, headers={"Idempotency-Key": "own"})
    line = {"sample_ids": ["a"], "idempotency_key": "own"}
    *answers, _ = send([{"sample_ids": ["b"]}, line, line])
    assert [answer["repeated"] for answer in answers] == [False, True, True]
    assert {answer["id"] for answer in answers[1:]} == {single.json()["id"]}
    moved, _ = send([line], key="other")
    assert moved["id"] == single.json()["id"]


def test_the_key_of_a_stream_is_no_key_of_a_single_request(
    client: TestClient, send: Callable[..., Any]
) -> None:
    answer, _ = send([{"sample_ids": ["a"]}])
    for key in ("stream", "1 stream"):
        single = client.post(ONE, json={"sample_ids": ["a"]}, headers={"Idempotency-Key": key})
        assert single.json()["id"] != answer["id"]


def test_a_client_may_leave_out_the_lines_that_it_has_answers_for(
    send: Callable[..., Any],
) -> None:
    *first, _ = send(asking(4))
    *rest, last = send(asking(6)[2:], first=3)
    assert [answer["line"] for answer in rest] == [3, 4, 5, 6]
    assert [answer["id"] for answer in rest[:2]] == [answer["id"] for answer in first[2:]]
    assert [answer["repeated"] for answer in rest] == [True, True, False, False]
    assert last["lines"] == 4
    # Without the number they would be the lines 1 and 2, which were others.
    assert "problem" in send(asking(6)[2:])[0]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 256}])
def test_a_stream_without_a_usable_key_is_refused_whole(
    client: TestClient, headers: dict[str, str]
) -> None:
    answer = client.post(URL, content=ndjson(asking(1)), headers=headers)
    assert answer.status_code == 422
    assert not stored()


@pytest.mark.parametrize("first", ["0", "x", "99999999999"])
def test_a_stream_that_begins_nowhere_is_refused_whole(client: TestClient, first: str) -> None:
    answer = client.post(f"{URL}?first_line={first}", content=ndjson(asking(1)), headers=KEY)
    assert answer.status_code == 422
    assert not stored()


def test_a_line_that_the_database_refuses_fails_alone(
    client: TestClient, send: Callable[..., Any]
) -> None:
    with transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.reference = 's-3' THEN RAISE EXCEPTION 'MARKED'; END IF; RETURN NEW; "
                "END $$"
            )
        )
        session.execute(
            text(
                "CREATE TRIGGER poison BEFORE INSERT ON deletion_requests "
                "FOR EACH ROW EXECUTE FUNCTION poison()"
            )
        )
    answers = send(asking(6))
    assert answers[3]["problem"]["type"] == "urn:lethe:problem:internal"
    assert "MARKED" not in json.dumps(answers)
    assert answers[-1] == {"lines": 6, "accepted": 5, "repeated": 0, "refused": 1}
    assert set(stored()) == {"s-0", "s-1", "s-2", "s-4", "s-5"}


def test_workers_are_nudged_after_what_is_new_alone(
    send: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[tuple[str, int]] = []
    monkeypatch.setattr(queue, "nudge", lambda task: nudged.append((task, len(stored()))))
    send(asking(3))
    assert nudged == [(queue.PLAN, 3)]
    send(asking(3))
    assert nudged == [(queue.PLAN, 3)]


def test_nothing_is_answered_when_the_database_was_away_from_the_beginning(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://x:y@127.0.0.1:1/none")
    answer = client.post(URL, content=ndjson(asking(2)), headers=KEY)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json()["type"] == "urn:lethe:problem:unavailable"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions of at most ten lines and twenty samples."""
    monkeypatch.setattr(bulk, "MOST_LINES", 10)
    monkeypatch.setattr(bulk, "MOST_SAMPLES", 20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("samples", "sizes"), [(1, [5, 10]), (8, [1, 2, 2, 2]), (30, [1, 1])])
def test_a_transaction_has_a_bounded_number_of_lines_and_of_samples(
    send: Callable[..., Any], samples: int, sizes: list[int]
) -> None:
    count = sum(sizes)
    send([{"sample_ids": [f"{n}/{m}" for m in range(samples)]} for n in range(count)])
    with transaction() as session:
        found = session.scalars(
            text("SELECT count(*) FROM deletion_requests GROUP BY xmin::text")
        ).all()
    assert sorted(found) == sizes


def test_neither_sample_ids_nor_keys_are_kept(
    capfd: pytest.CaptureFixture[str],
    send: Callable[..., Any],
    digest: Callable[[str], bytes],
) -> None:
    lines = [{"sample_ids": [MARK], "idempotency_key": MARK + "-own"}, {"sample_ids": [MARK + "2"]}]
    send(lines, key=MARK + "-stream")
    with transaction() as session:
        digests = set(session.scalars(select(RequestedSample.sample_digest)))
        rows = session.execute(text("SELECT to_jsonb(r)::text FROM deletion_requests r")).scalars()
        kept = "".join(rows) + "".join(session.scalars(select(AuditEntry.payload)))
        keys = session.scalars(select(DeletionRequest.idempotency_key_digest)).all()
        assert session.scalar(select(func.count()).select_from(DeletionRequest)) == 2
    assert digests == {digest(MARK), digest(MARK + "2")}
    assert all(key is not None and len(key) == 32 for key in keys)
    assert MARK not in kept + "".join(capfd.readouterr())
    assert MARK.encode().hex() not in kept
