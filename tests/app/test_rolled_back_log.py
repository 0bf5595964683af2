"""A log that lacks what it signed, or has it otherwise, signs nothing more under its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app import db
from app.audit import heads, ledger
from app.audit.command import main
from app.db import transaction
from app.errors import NotSigning, RolledBack
from lethe.verify.note import open_note, peek
from tests.app.signed_logs import (
    FORGERY,
    cut,
    facts_of,
    key,
    notes,
    public_keys,
    rewrite,
    sign_on_schedule,
    write,
)

Reread = Callable[[str, str], None]


@pytest.fixture
def witness_file(reread: Reread, tmp_path: Path) -> Path:
    """A witness file that the service writes."""
    path = tmp_path / "witness" / "heads.jsonl"
    path.parent.mkdir()
    reread("LETHE_WITNESS_FILE", str(path))
    return path


def forge() -> None:
    rewrite(*FORGERY)


def shorten() -> None:
    with transaction() as session:
        size = ledger.head(session).size
    rewrite(
        "DELETE FROM audit_leaves WHERE position = :last",
        "DELETE FROM audit_heads WHERE size > :last",
        'DELETE FROM audit_nodes WHERE ("index" + 1) << level > :last',
        last=size - 1,
    )


def lose_nodes() -> None:
    rewrite("DELETE FROM audit_nodes WHERE level > 0")


def change_the_note() -> None:
    rewrite("UPDATE signed_heads SET note = replace(note, 'time 20', 'time 19')")


def change_the_root() -> None:
    rewrite("UPDATE audit_heads SET root_hash = sha256(root_hash)")


@pytest.mark.parametrize(
    "tampering", [forge, shorten, lose_nodes, change_the_note, change_the_root]
)
def test_a_log_that_was_rewritten_signs_nothing_more(
    client: TestClient, capfd: pytest.CaptureFixture[str], tampering: Callable[[], None]
) -> None:
    write(6)
    heads.current()
    tampering()
    before = notes()
    assert client.get("/readyz").json()["log"] == "rolled back"
    # A head that nobody signed does not matter once the next one is made of the nodes.
    for count in (0, 3) if tampering is not change_the_root else (0,):
        write(count)
        with pytest.raises(RolledBack):
            heads.current()
        sign_on_schedule()
        assert capfd.readouterr().err.count('"event": "log.rolled_back"') == 2
    assert notes() == before
    answer = client.get("/v1/audit/export")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:lethe:problem:log-rolled-back")
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")


def test_the_tampering_of_these_tests_is_what_makes_them_fail(client: TestClient) -> None:
    write(6)
    heads.current()
    rewrite()
    write()
    assert heads.current()[0].size == 8


def backup(servers: Any, name: str) -> str:
    """Copy the database as it is now."""
    db.engine().dispose()
    with transaction() as session:
        current = str(session.scalar(select(func.current_database())))
    db.engine().dispose()
    return str(servers.create_database(name, current))


def test_a_database_that_was_restored_signs_nothing_beside_a_witness_file(
    client: TestClient, witness_file: Path, reread: Reread, servers: Any
) -> None:
    write(3)
    heads.current()
    copy = backup(servers, "restored_with_witness")
    try:
        write(2)
        newest, _ = heads.current()
        reread("LETHE_DATABASE_URL", copy)
        write(5)  # it grows beyond what was signed, and differently
        with pytest.raises(RolledBack):
            heads.current()
        with transaction() as session:
            assert ledger.head(session).size > newest.size
        assert client.get("/readyz").json()["log"] == "rolled back"
        assert peek(last_line(witness_file)).size == newest.size
    finally:
        reread("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
        servers.drop_database("restored_with_witness")


def last_line(path: Path) -> str:
    return str(json.loads(path.read_text().splitlines()[-1])["checkpoint"])


def test_nothing_is_signed_while_the_witness_file_cannot_be_read(
    client: TestClient, witness_file: Path
) -> None:
    heads.current()
    for damage in ("{not json\n", '{"checkpoint": 1}\n', "[]\n", "x" * 200_000):
        kept = witness_file.read_bytes()
        with witness_file.open("a") as file:
            file.write(damage)
        with pytest.raises(NotSigning):
            heads.current()
        assert client.get("/readyz").json()["log"] == "not signing"
        witness_file.write_bytes(kept)
    assert heads.current()[0].size == 1


def test_the_file_of_another_log_is_refused(client: TestClient, witness_file: Path) -> None:
    heads.current()
    rewrite("UPDATE log_origin SET origin = 'lethe/another'")
    with pytest.raises(RolledBack):
        heads.current()


def test_a_head_of_a_key_that_nobody_published_is_refused(
    client: TestClient, witness_file: Path
) -> None:
    checkpoint, note = heads.current()
    forged = heads.sign_note(checkpoint, heads._ed25519(key()))  # noqa: SLF001
    content = witness_file.read_text()
    witness_file.write_text(content.replace(note.splitlines()[-1], forged.splitlines()[-1]))
    assert witness_file.read_text() != content
    with pytest.raises(RolledBack):
        heads.current()


def test_a_log_goes_on_under_another_name_after_entries_were_lost(
    client: TestClient, witness_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(3)
    heads.current()
    former = peek(last_line(witness_file))
    write(4)
    lost = heads.current()[0]
    cut(former.size)
    with pytest.raises(RolledBack):
        heads.current()
    assert main(["restart"]) == 0
    kept = [path for path in witness_file.parent.iterdir() if path != witness_file]
    assert [peek(last_line(path)) for path in kept] == [lost]
    checkpoint, note = heads.current()
    assert checkpoint.origin != former.origin
    assert open_note(note, public_keys()) == checkpoint
    assert facts_of("log.restarted") == [
        {
            "former_origin": former.origin,
            "former_size": lost.size,
            "origin": checkpoint.origin,
        }
    ]
    assert checkpoint.origin in capsys.readouterr().out
    # From here on it is bound to what it signs again.
    cut(former.size)
    with pytest.raises(RolledBack):
        heads.current()


def test_a_log_that_contradicts_nothing_is_not_renamed(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    before, _ = heads.current()
    assert main(["restart"]) == 1
    assert heads.current()[0].origin == before.origin
    assert main(["restart", "--although-consistent"]) == 0
    assert heads.current()[0].origin != before.origin


@pytest.mark.parametrize("rewriting", ["forged", "cut"])
def test_a_rewriting_that_forgets_what_was_signed_is_noticed_by_the_witness_file(
    client: TestClient, witness_file: Path, rewriting: str
) -> None:
    write(5)
    heads.current()
    write(3)
    heads.current()
    if rewriting == "forged":
        rewrite("DELETE FROM signed_heads", *FORGERY)
    else:
        cut(6)
    write(20)
    kept = witness_file.read_bytes()
    with pytest.raises(RolledBack):
        heads.current()
    assert witness_file.read_bytes() == kept
