"""Keys of clients: made, shown once, and good for what they say until they are not."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update

from app.access_keys import lookup
from app.db import transaction
from app.scopes import Scope
from app.tables import AccessKey, AuditEntry
from tests.app.callers import bearer, give, id_of, revoke
from tests.app.watching import statements

KEYS = "/v1/access-keys"
REQUESTS = "/v1/deletion-requests"
AN_HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
NEW = {"name": "shop-eu", "scopes": ["erasure:submit", "erasure:read"]}


def make(client: TestClient, **changed: Any) -> dict[str, Any]:
    answer = client.post(KEYS, json={**NEW, **changed})
    assert answer.status_code == 201, answer.text
    return dict(answer.json(), location=answer.headers["Location"])


def stored() -> str:
    """Every byte of every row, as text."""
    with transaction() as session:
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname='public'"))
        rows = [str(session.execute(text(f'SELECT * FROM "{t}"')).all()) for t in tables.all()]  # noqa: S608
    return "".join(rows)


def test_a_key_is_shown_once_and_of_its_secret_a_digest_is_kept(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = client.post(KEYS, json=NEW)
    made = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    found = re.fullmatch(r"lethe_([0-9a-f]{32})_([0-9a-f]{64})", made["key"])
    assert found is not None
    assert made["id"].replace("-", "") == found[1]
    secret = found[2]
    with transaction() as session:
        row = session.get_one(AccessKey, id_of(made["key"]))
    assert row.secret_digest == hashlib.sha256(secret.encode()).digest()
    told = "".join(
        [
            client.get(answer.headers["Location"]).text,
            client.get(KEYS).text,
            client.get("/v1/audit/entries").text,
            stored(),
            *capfd.readouterr(),
        ]
    )
    assert "shop-eu" in told
    assert secret not in told
    assert secret != make(client)["key"].split("_")[2]


def test_a_key_opens_what_its_scopes_say_and_nothing_else(client: TestClient) -> None:
    headers = bearer(make(client)["key"])
    asked = client.post(REQUESTS, json={"sample_ids": ["a"]}, headers=headers)
    assert asked.status_code == 202
    assert client.get(asked.headers["Location"], headers=headers).status_code == 200
    refused = client.get("/v1/audit/head", headers=headers)
    assert refused.status_code == 403
    assert "`audit:read`" in refused.json()["detail"]
    assert client.get("/v1/audit/head").status_code == 200


def test_a_key_that_is_not_in_order_is_answered_like_any_other(client: TestClient) -> None:
    good = give("shop", Scope.READ)
    expired = give("shop", Scope.READ, expires_at=AN_HOUR_AGO)
    revoked = give("shop", Scope.READ)
    revoke(revoked)
    wrong = good[:-64] + secrets.token_hex(32)
    unknown = f"lethe_{uuid4().hex}_{good[-64:]}"
    seen = []
    for key in (unknown, wrong, expired, revoked):
        with statements() as asked:
            answer = client.get(REQUESTS, headers=bearer(key))
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        seen.append((answer.status_code, headers, answer.content, asked))
    assert seen[0][0] == 401
    assert len(seen[0][3]) == 1
    assert [each == seen[0] for each in seen] == [True] * 4
    assert client.get(REQUESTS, headers=bearer(good)).status_code == 200


def test_a_key_has_one_spelling(client: TestClient) -> None:
    key = give("shop", Scope.READ)
    for spoiled in (key.upper(), key[:-1], key + "0", key.replace("_", "-"), key.replace("_", "")):
        assert client.get(REQUESTS, headers=bearer(spoiled)).status_code == 401
    assert client.get(REQUESTS, headers=bearer(key)).status_code == 200


def test_two_keys_of_a_client_see_the_same_requests_and_other_clients_do_not(
    client: TestClient,
) -> None:
    old, new = make(client), make(client)
    asked = client.post(REQUESTS, json={"sample_ids": ["a"]}, headers=bearer(old["key"]))
    assert client.delete(old["location"]).status_code == 204
    answer = client.get(asked.headers["Location"], headers=bearer(new["key"]))
    assert answer.status_code == 200
    other = bearer(make(client, name="shop-us")["key"])
    assert client.get(asked.headers["Location"], headers=other).status_code == 404


def test_nobody_gives_a_scope_that_they_lack(client: TestClient) -> None:
    ops = bearer(give("automation", Scope.OPS))
    for scopes, status in ((["ops"], 201), (["ops", "erasure:decide"], 403)):
        body = {"name": "other", "scopes": scopes}
        assert client.post(KEYS, json=body, headers=ops).status_code == status
        assert client.post(KEYS, json=body).status_code == 201


def test_what_no_key_can_be_is_refused_and_not_quoted(client: TestClient) -> None:
    for changed in (
        {"name": "operator"},
        {"name": "oidc:shop"},
        {"name": "MARKED"},
        {"name": ""},
        {"scopes": []},
        {"scopes": ["erasure:MARKED"]},
        {"valid_days": 0},
        {"valid_days": 3661},
        {"expires_at": "2030-01-01T00:00:00Z"},
    ):
        answer = client.post(KEYS, json={**NEW, **changed})
        assert answer.status_code == 422, changed
        assert "MARKED" not in answer.text
    assert client.get(KEYS).json()["items"] == []
    assert client.post(KEYS, json=NEW).status_code == 201


def test_a_key_expires_after_its_days(client: TestClient) -> None:
    made = make(client, valid_days=30)
    life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(life - timedelta(days=30)) < timedelta(minutes=1)
    assert make(client)["expires_at"] is None


def test_who_made_and_who_revoked_a_key_is_in_the_log(client: TestClient) -> None:
    admin = bearer(give("admin", *Scope))
    made = client.post(KEYS, json={**NEW, "valid_days": 1}, headers=admin).json()
    for _ in range(2):  # once more changes nothing
        assert client.delete(f"{KEYS}/{made['id']}", headers=admin).status_code == 204
    shown = client.get(f"{KEYS}/{made['id']}").json()
    assert shown["created_by"] == "admin"
    assert shown["revoked_at"] is not None
    with transaction() as session:
        payloads = session.scalars(
            select(AuditEntry.payload)
            .where(AuditEntry.subject == id_of(made["key"]))
            .order_by(AuditEntry.id)
        ).all()
    told = [json.loads(payload) for payload in payloads]
    assert [(each["event"], each["facts"]) for each in told] == [
        (
            "access_key.created",
            {
                "name": "shop-eu",
                "scopes": ["erasure:read", "erasure:submit"],
                "expires_at": shown["expires_at"].replace("Z", "+00:00"),
                "by": "admin",
            },
        ),
        ("access_key.revoked", {"name": "shop-eu", "by": "admin"}),
    ]


def test_a_key_that_never_was_cannot_be_read_or_revoked(client: TestClient) -> None:
    url = f"{KEYS}/{uuid4()}"
    assert [client.get(url).status_code, client.delete(url).status_code] == [404, 404]


def test_keys_are_listed_in_pages_newest_first(client: TestClient) -> None:
    made = [make(client, name=f"shop-{number}")["id"] for number in range(3)]
    first = client.get(KEYS, params={"limit": 2}).json()
    second = client.get(KEYS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_uses_are_noted_once_a_minute_at_most(environment: dict[str, str]) -> None:
    key = give("shop", Scope.READ)

    def use() -> tuple[int, datetime | None]:
        with statements() as asked:
            assert lookup.identify(key) is not None
        with transaction() as session:
            used = session.get_one(AccessKey, id_of(key)).last_used_at
        return len([each for each in asked if each.startswith("UPDATE")]), used

    before = datetime.now(UTC)
    writes, first = use()
    assert writes == 1
    assert first is not None
    assert before <= first <= datetime.now(UTC)
    assert use() == (0, first)
    with transaction() as session:
        session.execute(update(AccessKey).values(last_used_at=first - timedelta(seconds=61)))
    writes, second = use()
    assert writes == 1
    assert second is not None
    assert second > first


def test_a_wrong_secret_is_no_use(environment: dict[str, str]) -> None:
    key = give("shop", Scope.READ)
    assert lookup.identify(key[:-64] + secrets.token_hex(32)) is None
    with transaction() as session:
        assert session.get_one(AccessKey, id_of(key)).last_used_at is None


def test_a_call_does_not_wait_for_whoever_writes_the_row(environment: dict[str, str]) -> None:
    key = give("shop", Scope.READ)
    with transaction() as session:
        session.get_one(AccessKey, id_of(key), with_for_update=True)
        assert lookup.identify(key) is not None
    with transaction() as session:
        assert session.get_one(AccessKey, id_of(key)).last_used_at is None


def test_a_scope_that_nobody_knows_opens_nothing(environment: dict[str, str]) -> None:
    key = give("shop", Scope.READ)
    with transaction() as session:
        session.execute(update(AccessKey).values(scopes=["erasure:read", "of:tomorrow"]))
    found = lookup.identify(key)
    assert found is not None
    assert found.client.scopes == {Scope.READ}


def test_without_the_database_a_key_is_neither_right_nor_wrong(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    key = give("shop", Scope.READ)
    reread("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    for shown in (key, key[:-64] + secrets.token_hex(32)):
        answer = client.get(REQUESTS, headers=bearer(shown))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json()["type"] == "urn:lethe:problem:unavailable"
    assert client.get(REQUESTS, headers=bearer("no key")).status_code == 401
    assert client.get("/healthz", headers=bearer(key)).status_code == 200


def test_of_the_operators_key_the_digest_is_enough(
    environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    from app.main import create_app

    key = f"lethe_{secrets.token_urlsafe(32)}"
    digest = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    reread("LETHE_API_KEY", "")
    reread("LETHE_API_KEY_DIGEST", digest)
    with TestClient(create_app()) as client:
        assert client.get(KEYS, headers=bearer(key)).status_code == 200
        others = (key[:-1], key + "x", digest, digest.removeprefix("sha256:"), "")
        for wrong in (*others, environment["LETHE_API_KEY"]):
            assert client.get(KEYS, headers=bearer(wrong)).status_code == 401


def test_without_a_key_of_the_operator_keys_of_clients_open(
    environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    from app.main import create_app

    root = environment["LETHE_API_KEY"]
    reread("LETHE_API_KEY", "")
    with TestClient(create_app()) as client:
        assert client.get(REQUESTS, headers=bearer(root)).status_code == 401
        assert client.get(REQUESTS, headers=bearer("")).status_code == 401
        key = give("shop", Scope.READ)
        assert client.get(REQUESTS, headers=bearer(key)).status_code == 200
