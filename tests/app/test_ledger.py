"""The transparency log in PostgreSQL: append-only, consistent, and loud when tampered with."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.audit import ledger, service
from app.db import transaction
from app.tables import APPEND_ONLY_TABLES, AuditHead, AuditLeaf
from lethe.verify import leaf_hash, root_of, verify_consistency, verify_inclusion


def write(count: int) -> None:
    with transaction() as session:
        ledger.append(
            session, [ledger.Entry("test.event", uuid4(), {"n": n}) for n in range(count)]
        )


def tamper(session: Session, statements: str) -> None:
    # What only the tables' owner can do: switch the triggers off.
    for table in APPEND_ONLY_TABLES:
        session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER append_only"))
    for statement in statements.split(";"):
        session.execute(text(statement))


def fetch_all(client: TestClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        page = client.get("/v1/audit/entries", params={"start": start, "limit": 50}).json()
        items += page["items"]
        start = page["next_start"]
    return items


def test_an_outsider_can_recompute_every_head_from_the_entries(client: TestClient) -> None:
    heads = []
    for count in (1, 2, 5, 60, 3):
        write(count)
        heads.append(client.get("/v1/audit/head").json())
    entries = [item["entry"].encode() for item in fetch_all(client)]
    assert [head["size"] for head in heads] == [1, 3, 8, 68, 71]
    for head in heads:
        assert root_of(entries[: head["size"]]).hex() == head["root_hash"]


def test_every_entry_is_proven_under_the_head(client: TestClient) -> None:
    write(13)
    for item in fetch_all(client):
        proof = client.get("/v1/audit/proofs/inclusion", params={"position": item["position"]})
        body = proof.json()
        assert verify_inclusion(
            leaf_hash(item["entry"].encode()),
            item["position"],
            body["head"]["size"],
            [bytes.fromhex(node) for node in body["path"]],
            bytes.fromhex(body["head"]["root_hash"]),
        )


def test_any_two_heads_are_proven_consistent(client: TestClient) -> None:
    write(11)
    for first in range(12):
        answer = client.get("/v1/audit/proofs/consistency", params={"first": first}).json()
        assert verify_consistency(
            first,
            11,
            [bytes.fromhex(node) for node in answer["path"]],
            bytes.fromhex(answer["first"]["root_hash"]),
            bytes.fromhex(answer["second"]["root_hash"]),
        )


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("inclusion", {"position": 3}),
        ("inclusion", {"position": 1, "size": 9}),
        ("inclusion", {"position": 2, "size": 2}),
        ("consistency", {"first": 4}),
        ("consistency", {"first": 1, "second": 9}),
        ("consistency", {"first": 2, "second": 1}),
    ],
)
def test_proofs_beyond_the_log_are_not_found(
    client: TestClient, path: str, params: dict[str, int]
) -> None:
    write(3)
    answer = client.get(f"/v1/audit/proofs/{path}", params=params)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:lethe:problem:not-found"


def test_an_entry_of_a_transaction_that_failed_never_happened(client: TestClient) -> None:
    def fail() -> None:
        with transaction() as session:
            ledger.append(session, [ledger.Entry("test.event", uuid4(), {})])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert client.get("/v1/audit/head").json()["size"] == 0


def test_concurrent_writers_and_sequencers_leave_one_log_without_gaps(client: TestClient) -> None:
    threads = [
        threading.Thread(target=act)
        for act in (lambda: write(7), service.place_all)
        for _ in "1234"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.place_all()
    with transaction() as session:
        assert session.scalar(select(func.max(AuditLeaf.position))) == 27
        assert session.scalar(select(func.count()).select_from(AuditLeaf)) == 28
        assert ledger.replay(session) == []


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
@pytest.mark.parametrize(
    "statement", ["DELETE FROM {}", "UPDATE {} SET {} = {}", "TRUNCATE {} CASCADE"]
)
def test_the_database_refuses_to_change_the_log(
    client: TestClient, table: str, statement: str
) -> None:
    write(3)
    service.place_all()
    column = {"audit_entries": "payload", "audit_leaves": "position"}.get(table, "created_at")
    column = {"audit_nodes": "hash", "signed_heads": "note"}.get(table, column)
    with pytest.raises(DBAPIError, match="append-only"), transaction() as session:
        session.execute(text(statement.format(table, column, column)))


TAMPERINGS = {
    "an entry's words": "UPDATE audit_entries SET payload = replace(payload, 'test', 'TEST')",
    "two entries' places": "UPDATE audit_leaves SET position = 99 WHERE position = 1; "
    "UPDATE audit_leaves SET position = 1 WHERE position = 2; "
    "UPDATE audit_leaves SET position = 2 WHERE position = 99",
    "the last entry gone": "DELETE FROM audit_leaves WHERE position = 4",
    "an entry in the middle gone": "DELETE FROM audit_leaves WHERE position = 2",
    "a node": "UPDATE audit_nodes SET hash = sha256(hash) WHERE level = 1 AND index = 0",
    "a head": "UPDATE audit_heads SET root_hash = sha256(root_hash)",
    "an entry that never gets a place": "INSERT INTO audit_entries (event, subject, payload) "
    "VALUES ('x', gen_random_uuid(), '{}')",
}


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_log_is_found_out(client: TestClient, tampering: str) -> None:
    write(5)
    service.place_all()
    with transaction() as session:
        assert ledger.replay(session) == []
        tamper(session, tampering)
        assert ledger.replay(session)


def test_an_entry_altered_behind_the_service_fails_its_old_proof(client: TestClient) -> None:
    write(5)
    proof = client.get("/v1/audit/proofs/inclusion", params={"position": 1}).json()
    with transaction() as session:
        tamper(session, TAMPERINGS["an entry's words"])
    altered = client.get("/v1/audit/entries", params={"start": 1, "limit": 1}).json()["items"][0]
    assert altered["entry"] != proof["entry"]["entry"]
    assert not verify_inclusion(
        leaf_hash(altered["entry"].encode()),
        1,
        proof["head"]["size"],
        [bytes.fromhex(node) for node in proof["path"]],
        bytes.fromhex(proof["head"]["root_hash"]),
    )


def test_the_newest_head_is_recorded_once(client: TestClient) -> None:
    write(2)
    client.get("/v1/audit/head")
    client.get("/v1/audit/head")
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(AuditHead)) == 1


def test_entries_can_be_asked_for_by_subject(client: TestClient, ready: Callable[..., Any]) -> None:
    model_id = ready()
    items = client.get("/v1/audit/entries", params={"subject": str(model_id)}).json()["items"]
    assert ['"event":"model.checking"' in items[0]["entry"], len(items)] == [True, 2]
