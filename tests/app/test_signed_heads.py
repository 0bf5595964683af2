"""Tree heads are signed over all that is committed, by one signer after the other."""

import itertools
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app.audit import heads, ledger, service, signed_heads
from app.db import transaction
from app.tables import AuditEntry, AuditLeaf
from lethe.verify import root_of, verify_consistency
from lethe.verify.note import Checkpoint, open_note, peek
from lethe.verify.reasons import NotProven
from tests.app.signed_logs import (
    events,
    key,
    notes,
    public_keys,
    rewrite,
    sign_on_schedule,
    write,
)


def entries() -> list[bytes]:
    """Every entry in the order of the log."""
    with transaction() as session:
        rows = session.scalars(
            select(AuditEntry.payload)
            .join(AuditLeaf, AuditLeaf.entry_id == AuditEntry.id)
            .order_by(AuditLeaf.position)
        )
        return [payload.encode() for payload in rows]


def test_a_signed_head_is_over_every_committed_entry_and_anybody_can_check_it(
    client: TestClient,
) -> None:
    origin = None
    for count in (1, 3, 60):
        write(count)
        checkpoint, note = heads.current()
        listed = entries()
        assert checkpoint.size == len(listed)
        assert checkpoint.root_hash == root_of(listed)
        assert open_note(note, public_keys()) == checkpoint
        assert abs(datetime.now(UTC) - checkpoint.signed_at) < timedelta(seconds=30)
        origin = origin or checkpoint.origin
        assert checkpoint.origin == origin
    with pytest.raises(NotProven):
        open_note(notes()[-1], [key().public])


def test_the_first_head_covers_the_introduction_of_its_own_key(client: TestClient) -> None:
    checkpoint, _ = heads.current()
    assert (checkpoint.size, events()) == (1, ["key.introduced"])


def redate(at: datetime) -> None:
    """Make the one signed head one that was signed at another time, by the same key."""
    (note,) = notes()
    old = peek(note)
    signed = Checkpoint(old.origin, old.size, old.root_hash, at.replace(microsecond=0))
    rewrite(
        "UPDATE signed_heads SET note = :note",
        "UPDATE published_keys SET introduced_at = introduced_at - INTERVAL '1 day'",
        note=heads.sign_note(signed, heads._ed25519(heads.keys.log_key())),  # noqa: SLF001
    )


def test_a_log_that_rests_is_not_signed_again_until_the_signature_is_an_hour_old(
    client: TestClient,
) -> None:
    write()
    for act in (heads.current, heads.refresh, sign_on_schedule, heads.current):
        act()
    assert len(notes()) == 1
    past = datetime.now(UTC) - heads.FRESHNESS
    old = peek(notes()[0])
    redate(past)
    heads.refresh()
    again = [peek(note) for note in notes()]
    assert [head.size for head in again] == [old.size] * 2
    assert again[1].signed_at - again[0].signed_at >= heads.FRESHNESS


def test_a_clock_that_is_set_back_does_not_turn_the_logs_time_back(client: TestClient) -> None:
    heads.current()
    ahead = datetime.now(UTC) + timedelta(hours=3)
    redate(ahead)
    write()
    assert heads.current()[0].signed_at == ahead.replace(microsecond=0)


def test_the_scheduled_task_signs_what_was_added(client: TestClient) -> None:
    for count in (1, 2):
        write(count)
        sign_on_schedule()
    assert [peek(note).size for note in notes()] == [2, 4]


def test_any_two_signed_heads_are_proven_consistent_over_http(client: TestClient) -> None:
    for count in (1, 2, 5, 9):
        write(count)
        heads.current()
    signed = [peek(note) for note in notes()]
    for first, second in itertools.combinations(signed, 2):
        params = {"first": first.size, "second": second.size}
        path = client.get("/v1/audit/proofs/consistency", params=params).json()["path"]
        nodes = [bytes.fromhex(node) for node in path]
        assert verify_consistency(first.size, second.size, nodes, first.root_hash, second.root_hash)
        assert not verify_consistency(
            first.size, second.size, nodes, second.root_hash, first.root_hash
        )


def test_the_newest_note_is_served_and_the_first_one_made_when_asked_for(
    client: TestClient,
) -> None:
    assert client.get("/v1/audit/head").json()["checkpoint"] is None
    answer = client.get("/v1/audit/checkpoint")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert open_note(answer.text, public_keys()).size == 1
    write()
    assert client.get("/v1/audit/checkpoint").text == answer.text
    head = client.get("/v1/audit/head").json()
    assert (head["size"], head["checkpoint"]) == (2, answer.text)
    heads.current()
    assert open_note(client.get("/v1/audit/checkpoint").text, public_keys()).size == 2


def test_who_signs_at_once_leaves_heads_that_all_agree(client: TestClient) -> None:
    failures: list[Exception] = []

    def act() -> None:
        try:
            for _ in range(3):
                write(2)
                heads.current()
        except Exception as error:  # noqa: BLE001  # told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=act) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    listed, signed = entries(), [peek(note) for note in notes()]
    assert signed[-1].size == len(listed) == 37
    assert [head.size for head in signed] == sorted(head.size for head in signed)
    for head in signed:
        assert head.root_hash == root_of(listed[: head.size])


def test_one_signer_waits_for_the_other(client: TestClient) -> None:
    heads.current()
    signed: list[Checkpoint] = []

    def act() -> None:
        with transaction() as session:
            signed.append(heads.sign(session).checkpoint)

    thread = threading.Thread(target=act)
    with transaction() as session:
        heads.sign(session)
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not session.scalar(waiting):
            assert not signed
    thread.join()
    assert len(signed) == 1


def test_what_the_callers_own_transaction_logs_is_covered_too(client: TestClient) -> None:
    heads.current()
    with transaction() as session:
        ledger.append(session, [ledger.Entry("test.event", uuid4(), {})])
        assert heads.covering(session).checkpoint.size == 2
    assert len(entries()) == 2


def test_every_entry_is_placed_however_many_there_are(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BATCH", 3)
    for count in (2, 3, 6, 10):
        write(count)
        checkpoint, _ = heads.current()
        assert checkpoint.root_hash == root_of(entries())
    write(7)
    with transaction() as session:
        assert heads.sign(session).checkpoint.size == checkpoint.size + 7


def test_a_head_counts_only_if_its_transaction_commits(client: TestClient) -> None:
    def fail() -> None:
        with transaction() as session:
            heads.sign(session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (notes(), events()) == ([], [])


def test_the_replay_finds_a_signed_head_that_is_not_of_these_entries(client: TestClient) -> None:
    write(4)
    heads.current()
    with transaction() as session:
        assert ledger.replay(session) == []
    other = heads.sign_note(
        Checkpoint("lethe/x", 3, bytes(32), datetime.now(UTC)),
        heads._ed25519(key()),  # noqa: SLF001
    )
    rewrite("UPDATE signed_heads SET note = :note, size = 3", note=other)
    with transaction() as session:
        assert ledger.replay(session) == ["signed head of size 3 differs from the entries"]


def test_what_is_asked_for_last_is_what_was_signed_last(client: TestClient) -> None:
    write()
    heads.current()
    service.place_all()
    with transaction() as session:
        signed = signed_heads.latest(session)
    assert signed is not None
    assert signed.note == notes()[-1]
