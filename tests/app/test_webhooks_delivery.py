"""A promised message is sent until it is taken or given up, and by one sender at a time."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app import logs
from app.db import transaction
from app.tables import Signer
from app.webhooks import delivering, outbox, signers
from app.webhooks.delivering import Senders
from app.webhooks.outbox import Outgoing
from app.webhooks.outcomes import PAUSES
from tests.app.outboxes import SECRET, TARGET, claim, claimed, enqueue, send_all
from tests.app.recalls import deliveries, delivery, make_due
from tests.app.receivers import Receiver, listening, talking, verify


@pytest.fixture(autouse=True)
def _loopback_over_plain_http(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_MODE", "embedded")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")
    logs.set_up()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as started:
        yield started


def test_a_message_is_sent_once_signed_and_then_over(receiver: Receiver) -> None:
    id_ = enqueue(receiver.port, number=7)
    send_all()
    send_all()
    [got] = receiver.received
    assert got.path == TARGET
    assert verify(SECRET, got) == {
        "type": "test.event",
        "timestamp": "2026-11-21T10:00:00Z",
        "data": {"number": 7},
    }
    assert got.headers["webhook-id"] == str(id_)
    assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert (got.headers["Content-Type"], got.headers["User-Agent"][:6]) == (
        "application/json",
        "Lethe/",
    )
    row = delivery(id_)
    assert row.delivered_at is not None
    assert (row.attempts, row.problem, row.secret, row.given_up_at) == (1, None, None, None)


@pytest.mark.parametrize("status", [301, 307, 400, 404, 429, 500, 503])
def test_what_was_not_taken_is_sent_again_later_with_the_same_id(status: int) -> None:
    with listening(Receiver(status=status)) as receiver:
        id_ = enqueue(receiver.port)
        before = datetime.now(UTC)
        send_all()
        row = delivery(id_)
        assert (row.attempts, row.problem) == (1, f"status {status}")
        assert PAUSES[0] <= row.not_before - before <= 1.2 * PAUSES[0] + timedelta(seconds=10)
        assert (row.delivered_at, row.given_up_at) == (None, None)
        send_all()
        assert len(receiver.received) == 1  # the pause has not ended
        receiver.status = 200
        make_due()
        send_all()
        first, second = receiver.received
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        assert delivery(id_).delivered_at is not None


def test_a_receiver_that_is_gone_is_left_alone() -> None:
    with listening(Receiver(status=410)) as receiver:
        id_ = enqueue(receiver.port)
        send_all()
    row = delivery(id_)
    assert (row.problem, row.given_up_at is None, row.secret) == ("status 410", False, None)
    make_due()
    assert claim() is None


def test_two_schedulers_send_each_message_once(receiver: Receiver) -> None:
    for number in range(12):
        enqueue(receiver.port, f"127.0.0.{1 + number % 3}", number)
    both = [Senders(most=3), Senders(most=3)]
    with (
        listening(host="127.0.0.2", port=receiver.port) as second,
        listening(host="127.0.0.3", port=receiver.port) as third,
    ):
        threads = [thread for senders in both for thread in senders.start()]
        for thread in threads:
            thread.join(timeout=20)
        got = receiver.received + second.received + third.received
    assert sorted(json.loads(each.body)["data"]["number"] for each in got) == list(range(12))


def test_a_slow_receiver_holds_up_itself_alone() -> None:
    slow = Receiver(hold=threading.Event())
    with listening(slow) as held, listening(Receiver(), "127.0.0.2") as quick:
        ids = [enqueue(held.port) for _ in range(4)]
        senders = Senders(most=2)
        threads = senders.start()
        assert held.got.wait(20)
        others = [enqueue(quick.port, "127.0.0.2") for _ in range(3)]
        while any(delivery(id_).delivered_at is None for id_ in others):
            threads += senders.start()
        assert (len(held.received), len(quick.received)) == (1, 3)
        assert slow.hold is not None
        slow.hold.set()
        for thread in threads:
            thread.join(timeout=20)
        assert held.at_once == 1
        assert all(delivery(id_).delivered_at is not None for id_ in ids)


def test_whoever_asks_for_messages_to_be_sent_does_not_wait_for_receivers() -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    with listening(Receiver(hold=threading.Event())) as held:
        id_ = enqueue(held.port)
        started = time.monotonic()
        tasks.deliver()
        assert time.monotonic() - started < 4  # the receiver takes as long as it wants
        assert held.got.wait(20)
        assert any(thread.name == "sender" for thread in threading.enumerate())
        tasks.deliver()  # nothing else is due
        assert delivery(id_).delivered_at is None
        assert held.hold is not None
        held.hold.set()
        for thread in threading.enumerate():
            if thread.name == "sender":
                assert thread.daemon
                thread.join(timeout=20)
    assert delivery(id_).delivered_at is not None
    assert len(held.received) == 1


def test_what_is_allowed_is_asked_again_when_it_is_sent(
    receiver: Receiver, reread: Callable[[str, str], None]
) -> None:
    first, second = enqueue(receiver.port), enqueue(receiver.port, "127.0.0.1")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.9")
    send_all()
    assert [delivery(id_).problem for id_ in (first, second)] == 2 * ["address refused"]
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")
    reread("LETHE_MODE", "production")
    make_due()
    send_all()
    assert delivery(first).problem == "address refused"
    assert receiver.received == []


def test_a_message_that_breaks_off_is_logged_and_comes_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    id_ = enqueue(receiver.port)

    def fail(*_: object) -> None:
        raise ValueError("MARKED")

    with monkeypatch.context() as patch:
        patch.setattr(delivering, "attempt", fail)
        capfd.readouterr()
        send_all()
    said = capfd.readouterr().err
    assert "delivery.broke_off" in said
    assert "MARKED" not in said
    make_due()
    send_all()
    assert delivery(id_).delivered_at is not None


def test_the_log_names_the_host_and_what_happened_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    with listening(Receiver(status=500, body=b"MARKED")) as receiver:
        id_ = enqueue(receiver.port)
        send_all()
        receiver.status = 200
        make_due()
        send_all()
        receiver.status = 410
        gone = enqueue(receiver.port)
        send_all()
    with talking(lambda them: them.sendall(b"MARKED\r\n\r\n")) as port:
        enqueue(port)
        send_all()
    written = capfd.readouterr()
    lines = [json.loads(line) for line in written.err.splitlines() if line[:1] == "{"]
    told = [(x["event"], x.get("problem")) for x in lines if x["event"].startswith("delivery.")]
    assert told == [
        ("delivery.failed", "status 500"),
        ("delivery.taken", None),
        ("delivery.given_up", "status 410"),
        ("delivery.failed", "no HTTP"),
    ]
    assert {x["host"] for x in lines if x["event"].startswith("delivery.")} == {"127.0.0.1"}
    assert {str(id_), str(gone)} <= {x.get("delivery") for x in lines}
    stored = " ".join(str(each.problem) for each in deliveries())
    for text in (written.err, written.out, stored):
        assert "MARKED" not in text
        assert SECRET.decode() not in text
    make_due()
    assert SECRET.decode() not in repr(claimed())


def test_a_way_of_signing_makes_the_headers_of_each_attempt_anew(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = dict(signers._ways)  # noqa: SLF001  # put back afterwards
    ways.pop(Signer.OPENDSR, None)
    monkeypatch.setattr(signers, "_ways", ways)
    url = f"http://127.0.0.1:{receiver.port}{TARGET}"
    with transaction() as session:
        message = Outgoing(url, "other.event", '{"raw": 1}', signer=Signer.OPENDSR)
        [id_] = outbox.enqueue_all(session, [message])
    send_all()
    assert (delivery(id_).problem, delivery(id_).attempts, receiver.received) == (
        "not signing",
        1,
        [],
    )
    signers.add(Signer.OPENDSR, lambda message, at: {"X-Mine": f"{message.attempt}/{at}"})
    make_due()
    send_all()
    [got] = receiver.received
    attempt, at = got.headers["X-Mine"].split("/")
    assert attempt == "2"
    assert abs(int(at) - datetime.now(UTC).timestamp()) < 60
    assert got.body == b'{"raw": 1}'
    assert "webhook-signature" not in {name.lower() for name in got.headers}
    assert delivery(id_).delivered_at is not None
