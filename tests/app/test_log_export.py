"""The exported log is whole, fixed at its start, and replays to the heads that were signed."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.audit import export, heads
from app.audit.command import main
from app.db import transaction
from lethe.verify import root_of
from lethe.verify.keys import load_keys
from lethe.verify.log import verify_log
from lethe.verify.note import peek
from lethe.verify.reasons import NotProven, Reason
from tests.app.signed_logs import FORGERY, notes, public_keys, rewrite, write


def entries(content: bytes) -> list[bytes]:
    """The entries of an export, read without any of our code."""
    lines = [json.loads(line) for line in content.splitlines()]
    return [line["entry"].encode() for line in lines if "entry" in line]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH", 3)


@pytest.mark.usefixtures("small_batches")
def test_an_outsider_replays_the_log_with_nothing_but_the_export_and_the_keys(
    client: TestClient,
) -> None:
    for count in (1, 4, 5, 2):
        write(count)
        heads.current()
    write(2)  # in no signed head yet
    answer = client.get("/v1/audit/export")
    assert answer.headers["Content-Type"] == "application/jsonl"
    replayed = verify_log(io.BytesIO(answer.content), load_keys(client.get("/v1/keys").content))
    assert (replayed.size, replayed.heads) == (15, 5)
    # And without our verifier.
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert lines[0] == {"format": "lethe-log-v1", "origin": peek(notes()[0]).origin}
    assert [set(line) for line in lines[1:]] == [{"entry"}] * 15 + [{"checkpoint"}] * 5
    assert [line["checkpoint"] for line in lines[16:]] == notes()
    last = peek(lines[-1]["checkpoint"])
    assert (last.size, last.root_hash) == (15, root_of(entries(answer.content)))


def test_an_empty_log_has_the_introduction_of_its_key(client: TestClient) -> None:
    content = client.get("/v1/audit/export").content
    assert len(entries(content)) == 1
    assert verify_log(io.BytesIO(content), public_keys()).size == 1


@pytest.mark.usefixtures("small_batches")
def test_what_happens_during_an_export_is_not_in_it(client: TestClient) -> None:
    write(10)
    lines = export.begin()
    got = [next(lines), next(lines)]
    write(5)
    heads.current()
    with transaction() as session:
        open_ones = session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%'"
            )
        )
    # Nothing of the database waits for whoever reads slowly.
    assert open_ones == 0
    content = b"".join([*got, *lines])
    assert verify_log(io.BytesIO(content), public_keys()).size == len(entries(content)) == 11


def replace_entry(content: bytes) -> bytes:
    return content.replace(b"test.event", b"best.event", 1)


def drop_entry(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:3] + lines[4:])


def drop_last_head(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-1])


def drop_all_heads(content: bytes) -> bytes:
    return b"".join(line for line in content.splitlines(True) if b'"checkpoint"' not in line)


def cut_within_a_line(content: bytes) -> bytes:
    return content[:-5]


@pytest.mark.parametrize(
    ("tampering", "reasons"),
    [
        (replace_entry, {Reason.LOG_ROOT_DIFFERS}),
        (drop_entry, {Reason.LOG_TRUNCATED, Reason.LOG_ROOT_DIFFERS}),
        (drop_last_head, {Reason.LOG_UNCOVERED}),
        (drop_all_heads, {Reason.LOG_TRUNCATED}),
        (cut_within_a_line, {Reason.LOG_TRUNCATED}),
    ],
)
def test_an_export_that_is_not_as_it_was_is_refused(
    client: TestClient, tampering: Any, reasons: set[Reason]
) -> None:
    write(5)
    heads.current()
    write(3)
    content = client.get("/v1/audit/export").content
    assert verify_log(io.BytesIO(content), public_keys()).size == 9
    changed = tampering(content)
    assert changed != content
    with pytest.raises(NotProven) as refused:
        verify_log(io.BytesIO(changed), public_keys())
    assert refused.value.reason in reasons


def test_an_export_of_a_forked_log_is_refused_by_a_head_that_somebody_kept(
    client: TestClient,
) -> None:
    write(5)
    kept = heads.current()[1]
    content = client.get("/v1/audit/export").content
    assert verify_log(io.BytesIO(content), public_keys(), [kept]).size == 6
    rewrite("DELETE FROM signed_heads", *FORGERY)
    forked = client.get("/v1/audit/export").content
    assert verify_log(io.BytesIO(forked), public_keys()).size == 6
    with pytest.raises(NotProven) as refused:
        verify_log(io.BytesIO(forked), public_keys(), [kept])
    assert refused.value.reason == Reason.LOG_FORKED


@pytest.mark.usefixtures("small_batches")
def test_a_log_that_was_restarted_exports_the_heads_of_its_own_name(client: TestClient) -> None:
    for _ in range(5):
        write()
        heads.current()
    assert main(["restart", "--although-consistent"]) == 0
    content = client.get("/v1/audit/export").content
    replayed = verify_log(io.BytesIO(content), public_keys())
    assert (replayed.heads, replayed.origin) == (1, peek(notes()[-1]).origin)
    assert replayed.size == 7


def test_the_command_writes_the_same_log_and_replaces_no_file(
    client: TestClient, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    write(4)
    served = client.get("/v1/audit/export").content
    out = tmp_path / "log.jsonl"
    capfdbinary.readouterr()
    assert main(["export", "--out", str(out)]) == 0
    assert capfdbinary.readouterr().out == b""
    assert out.read_bytes() == served
    assert main(["export", "--out", str(out)]) == 1
    assert b"log.jsonl exists" in capfdbinary.readouterr().err
    assert out.read_bytes() == served
    assert main(["export", "--out", "-"]) == 0
    assert capfdbinary.readouterr().out == served


def test_the_export_is_for_those_with_the_key_alone(client: TestClient) -> None:
    client.headers.pop("Authorization")
    assert client.get("/v1/audit/export").status_code == 401
