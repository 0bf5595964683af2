"""Keys are published before they sign, retired for good, and known to everybody."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from app import keys
from app.audit import heads, published, service
from app.audit.keys_command import main
from app.db import transaction
from app.errors import NotFound, NotSigning
from app.keys import KeyRefused, Purpose, SigningKey
from app.tables import AuditEntry, PublishedKey
from lethe.verify.keys import load_keys, thumbprint, to_jwk
from lethe.verify.note import open_note
from tests.app.signed_logs import events, facts_of, key, let_pass, retired


def introduce(*introduced: SigningKey) -> None:
    for each in introduced:
        with transaction() as session:
            published.introduce(session, each)


def retire(key_id: str) -> datetime:
    with transaction() as session:
        return published.retire(session, key_id)


def test_a_key_is_published_and_logged_at_its_first_use_and_not_again(client: TestClient) -> None:
    used = key()
    introduce(used, used)
    assert list(retired()) == [used.id]
    assert facts_of("key.introduced") == [
        {
            "kid": used.id,
            "purpose": "log",
            "generated": False,
            "public_key": to_jwk(used.public),
        }
    ]
    with transaction() as session:
        subject = session.scalars(select(AuditEntry.subject)).one()
    # RFC 9562's name-based UUID of the key's thumbprint URI, as Python's own module makes it.
    assert (subject.version, subject) == (5, published.subject_of(used.id))
    assert subject != published.subject_of(key().id)


def test_everybody_can_read_every_key_with_its_life(client: TestClient) -> None:
    old, new, weights = key(), key(), key(Purpose.WEIGHTS)
    started = datetime.now(UTC).replace(microsecond=0)
    introduce(old, new, weights)
    client.headers.pop("Authorization")
    answer = client.get("/v1/keys")
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    jwks = {jwk["kid"]: jwk for jwk in answer.json()["keys"]}
    assert {kid: jwk["purpose"] for kid, jwk in jwks.items()} == {
        old.id: "log",
        new.id: "log",
        weights.id: "weights",
    }
    assert all(jwk["iat"] >= started.timestamp() for jwk in jwks.values())
    assert [kid for kid, jwk in jwks.items() if "exp" in jwk] == [old.id]
    assert jwks[old.id]["exp"] == jwks[new.id]["iat"] + 3600
    # What a verifier reads out of it are the very keys.
    read = {found.id: found for found in load_keys(answer.content)}
    for used in (old, new, weights):
        assert thumbprint(read[used.id].public) == thumbprint(used.private.public_key())
    assert not any("d" in jwk for jwk in jwks.values())


def test_a_new_key_retires_the_former_one_of_its_purpose_an_hour_later(client: TestClient) -> None:
    old, new, weights = key(), key(), key(Purpose.WEIGHTS)
    introduce(old, weights, new)
    assert retired() == {old.id: True, new.id: False, weights.id: False}
    introduce(old)  # processes that are not restarted yet go on
    let_pass("59 minutes")
    introduce(old, new)
    let_pass("1 minute")
    with pytest.raises(KeyRefused, match="was retired"):
        introduce(old)
    introduce(new, weights)
    (fact,) = facts_of("key.retired")
    assert (fact["kid"], fact["purpose"]) == (old.id, "log")
    ended = datetime.fromisoformat(str(fact["retired_at"]))
    assert timedelta(minutes=59) < ended - datetime.now(UTC) <= timedelta(hours=1)


def test_a_key_that_is_to_be_retired_is_not_given_more_time_by_a_third_one(
    client: TestClient,
) -> None:
    first, second, third = key(), key(), key()
    introduce(first, second)
    let_pass("30 minutes")
    introduce(third)
    let_pass("30 minutes")
    with pytest.raises(KeyRefused):
        introduce(first)
    introduce(second, third)
    assert [fact["kid"] for fact in facts_of("key.retired")] == [first.id, second.id]


def test_a_key_that_was_generated_here_is_refused_outside_the_embedded_mode(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    made = key(generated=True)
    reread("LETHE_MODE", "embedded")
    introduce(made)
    reread("LETHE_MODE", "production")
    # The same key without its mark, as somebody leaves it who edits the file.
    cleaned = SigningKey(Purpose.LOG, made.private, generated=False)
    with pytest.raises(KeyRefused, match="generated"):
        introduce(cleaned)
    introduce(key())


def test_a_retired_key_signs_nothing_and_the_service_says_so(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, note = heads.current()
    assert client.get("/readyz").json()["log"] == "ok"
    assert retire(keys.log_key().id) <= datetime.now(UTC)
    for act in (heads.current, heads.refresh):
        with pytest.raises(NotSigning):
            act()
    answer = client.get("/v1/audit/export")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:lethe:problem:not-signing")
    assert "Retry-After" in answer.headers
    assert "log.key_refused" in capfd.readouterr().err
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["log"]) == (
        200,
        "degraded",
        "not signing",
    )
    # What it signed before stays what it was.
    with transaction() as session:
        assert open_note(note, published.published(session)) == checkpoint


def test_a_key_whose_overlap_ends_signs_nothing_though_the_log_rests(client: TestClient) -> None:
    heads.current()
    introduce(key())  # by a process that was restarted already
    heads.current()
    let_pass("1 hour")
    with pytest.raises(NotSigning):
        heads.current()


def test_a_new_key_is_published_before_anything_is_signed_though_the_log_rests(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    heads.current()
    reread("LETHE_LOG_KEY", keys.to_pem(keys.create(Purpose.LOG)))
    checkpoint, note = heads.current()
    assert retired()[keys.log_key().id] is False
    assert open_note(note, [keys.log_key().public]) == checkpoint
    assert checkpoint.size == len(events())  # its own introduction is covered


def test_another_key_takes_over_after_a_theft(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    heads.current()
    retire(keys.log_key().id)
    reread("LETHE_LOG_KEY", keys.to_pem(keys.create(Purpose.LOG)))
    checkpoint, note = heads.current()
    with transaction() as session:
        assert open_note(note, published.published(session)) == checkpoint
    assert client.get("/readyz").json()["log"] == "ok"


def test_a_key_is_retired_at_once_from_the_command_line_and_for_good(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = key(), key()
    introduce(old, new)  # the old one had an hour left
    assert main(["retire", old.id]) == 0
    assert main(["retire", old.id]) == 0  # and a second time changes nothing
    with pytest.raises(KeyRefused):
        introduce(old)
    assert events().count("key.retired") == 2  # when its end was set, and when it came
    capsys.readouterr()
    assert main(["list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "retired" in listed[old.id]
    assert "in use since" in listed[new.id]
    assert "retired" not in listed[new.id]
    assert main(["retire", "no-such-key"]) == 1


def test_only_a_published_key_can_be_retired(client: TestClient) -> None:
    with pytest.raises(NotFound):
        retire(key().id)
    assert events() == []


def test_processes_that_introduce_one_key_at_once_publish_it_once(client: TestClient) -> None:
    used = key()
    together(lambda: introduce(used))
    assert retired() == {used.id: False}
    assert events() == ["key.introduced"]


def test_of_different_keys_that_come_at_once_one_stays(client: TestClient) -> None:
    used = [key() for _ in range(8)]
    waiting = iter(used)
    lock = threading.Lock()

    def act() -> None:
        with lock:
            mine = next(waiting)
        introduce(mine)

    together(act)
    assert sorted(retired().values()) == [False, *[True] * 7]
    assert sorted(events()) == ["key.introduced"] * 8 + ["key.retired"] * 7
    with transaction() as session:
        (last,) = session.scalars(
            select(PublishedKey.id).where(PublishedKey.retired_at.is_(None))
        ).all()
        newest = session.scalar(select(func.max(PublishedKey.introduced_at)))
        assert session.get_one(PublishedKey, last).introduced_at == newest


def test_who_retires_a_key_waits_for_what_is_being_signed_with_it(client: TestClient) -> None:
    used = key()
    introduce(used)
    done = threading.Event()

    def act() -> None:
        retire(used.id)
        done.set()

    thread = threading.Thread(target=act)
    with transaction() as session:
        published.introduce(session, used)
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not session.scalar(waiting):
            assert not done.is_set()
    thread.join()
    assert done.is_set()


def test_the_life_of_a_key_can_be_read_by_its_subject(client: TestClient) -> None:
    used = key()
    introduce(used, key())
    service.place_all()
    params = {"subject": str(published.subject_of(used.id))}
    items = client.get("/v1/audit/entries", params=params).json()["items"]
    entries = [json.loads(item["entry"]) for item in items]
    assert [entry["event"] for entry in entries] == ["key.introduced", "key.retired"]
    assert {entry["facts"]["kid"] for entry in entries} == {used.id}


def together(act: Callable[[], None]) -> None:
    """Let eight threads act at the same moment."""
    failures: list[Exception] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        try:
            act()
        except Exception as error:  # noqa: BLE001  # told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
