"""`lethe access`, which needs the database and no API."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from app.access_keys import lookup
from app.access_keys.command import main
from app.db import transaction
from app.scopes import Client, Scope
from app.tables import AccessKey
from tests.app.callers import give, id_of, revoke

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def access(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command; returns its status and what it wrote on both streams."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


def test_a_key_is_all_that_standard_output_gets(
    access: Command,
) -> None:
    status, key, told = access(
        *("create", "shop", "--scope", "erasure:read", "--scope", "ops", "--days", "7")
    )
    assert status == 0
    found = lookup.identify(key.removesuffix("\n"))
    assert found is not None
    assert found.client == Client("shop", frozenset({Scope.READ, Scope.OPS}))
    assert found.expires_at is not None
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    assert key.strip()[-64:] not in told
    with transaction() as session:
        assert session.get_one(AccessKey, id_of(key)).created_by == "operator"


def test_the_list_says_how_each_key_stands_and_no_secret(
    access: Command,
) -> None:
    keys = {
        "for good, never used": give("a", Scope.READ),
        "for good, used": give("b", Scope.READ),
        "expired": give("c", Scope.READ, expires_at=datetime.now(UTC) - timedelta(days=1)),
        "until": give("d", Scope.READ, expires_at=datetime.now(UTC) + timedelta(days=1)),
        "revoked": give("e", Scope.READ, Scope.OPS),
    }
    lookup.identify(keys["for good, used"])
    revoke(keys["revoked"])
    status, listed, _ = access("list")
    assert status == 0
    lines = listed.splitlines()
    assert len(lines) == len(keys)
    for (life, key), name, line in zip(reversed(keys.items()), "edcba", lines, strict=True):
        assert line.startswith(f"{id_of(key)}  {name}  erasure:read")
        assert life in line
        for kept_back in (key[-64:], hashlib.sha256(key[-64:].encode()).hexdigest()):
            assert kept_back not in listed


def test_a_key_is_revoked_by_its_id_or_by_itself(access: Command) -> None:
    key, other = give("shop", Scope.READ), give("shop", Scope.READ)
    status, told, _ = access("revoke", str(id_of(key)))
    assert (status, told.startswith("revoked ")) == (0, True)
    assert access("revoke", key)[:2] == (0, told)
    assert lookup.identify(key) is None
    assert lookup.identify(other) is not None
    access("revoke", other)
    assert lookup.identify(other) is None


def test_what_cannot_be_is_refused_with_a_status_and_not_quoted(access: Command) -> None:
    cases: tuple[tuple[int, list[str]], ...] = (
        (1, ["revoke", str(uuid4())]),
        (2, ["revoke", "lethe_MARKED_" + secrets.token_hex(8)]),
        (2, ["create", "MARKED", "--scope", "ops"]),
        (2, ["create", "operator", "--scope", "ops"]),
        (2, ["create", "shop"]),
        (2, ["create", "shop", "--scope", "everything"]),
        (2, ["create", "shop", "--scope", "ops", "--days", "0"]),
        (2, ["create", "shop", "--scope", "ops", "--days", "9" * 5000]),
    )
    for expected, arguments in cases:
        status, written, told = access(*arguments)
        assert (status, written) == (expected, ""), arguments
        assert told
        assert "MARKED" not in told
    assert access("list")[:2] == (0, "")


def test_a_database_that_is_away_is_said_and_not_quoted(
    access: Command, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://nobody:MARKED@127.0.0.1:1/none")
    status, _, told = access("list")
    assert status == 2
    assert "does not answer" in told
    assert "MARKED" not in told


def test_a_key_of_the_command_opens_the_api(access: Command, client: TestClient) -> None:
    _, key, _ = access("create", "auditor", "--scope", "audit:read")
    headers = {"Authorization": f"Bearer {key.strip()}"}
    assert client.get("/v1/audit/head", headers=headers).status_code == 200
    assert client.get("/v1/access-keys", headers=headers).status_code == 403
