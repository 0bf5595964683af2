"""An endpoint hears of one request in order, and whoever fails holds up itself alone."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.tables import Delivery
from app.webhooks import outbox
from app.webhooks.delivering import Senders
from app.webhooks.outbox import Outgoing
from app.webhooks.outcomes import PAUSES, Failure
from tests.app.outboxes import SECRET, claim, claimed, record, send_all
from tests.app.recalls import delivery, make_due
from tests.app.receivers import Receiver, listening

SENDERS = 4


@pytest.fixture(autouse=True)
def _loopback_over_plain_http(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_MODE", "embedded")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as started:
        yield started


def promise(*told: tuple[UUID, int], port: int = 9, host: str = "127.0.0.1") -> list[UUID]:
    """Promise messages in this order, each of a lane."""
    messages = [
        Outgoing(
            f"http://{host}:{port}/",
            "test.event",
            json.dumps([str(lane), number]),
            secret=SECRET,
            lane=lane,
        )
        for lane, number in told
    ]
    with transaction() as session:
        return outbox.enqueue_all(session, messages)


def got(*receivers: Receiver) -> dict[str, list[int]]:
    """The numbers that arrived, of each lane in order."""
    found: dict[str, list[int]] = {}
    for receiver in receivers:
        for each in receiver.received:
            lane, number = json.loads(each.body)
            found.setdefault(lane, []).append(number)
    return found


def test_a_message_waits_for_the_earlier_ones_of_its_lane_and_for_no_others() -> None:
    lane = uuid4()
    first, second, third = promise((lane, 1), (lane, 2), (uuid4(), 1))
    make_due()
    taken = [claimed(), claimed()]
    assert {each.id for each in taken} == {first, third}
    assert claim() is None
    for message in taken:
        record(message, None if message.id == third else Failure("timed out"))
    assert claim() is None  # it pauses, and so does what follows it
    make_due()
    again = claimed()
    assert again.id == first
    record(again, None)
    make_due()
    assert claimed().id == second


@pytest.mark.parametrize("end", ["gone", "attempts"])
def test_what_was_given_up_holds_up_nothing_more(end: str) -> None:
    lane = uuid4()
    first, second = promise((lane, 1), (lane, 2))
    failures = [Failure("status 410", is_final=True)] if end == "gone" else []
    for failure in failures or [Failure("timed out")] * (len(PAUSES) + 1):
        make_due()
        message = claimed()
        assert message.id == first
        record(message, failure)
    make_due()
    assert delivery(first).given_up_at is not None
    assert claimed().id == second


def test_what_waits_behind_a_failed_one_is_put_off_with_it_out_of_everybodys_way() -> None:
    lane = uuid4()
    [first, second] = promise((lane, 1), (lane, 2))
    record(claimed(), Failure("timed out"))
    [later] = promise((lane, 3))
    rows = [delivery(id_) for id_ in (first, second, later)]
    assert len({row.not_before for row in rows}) == 1
    assert rows[0].not_before > datetime.now(UTC)
    with transaction() as session:
        assert outbox.count_due(session, 10) == 0
    # Behind one that was only claimed, a message is not late.
    other = uuid4()
    [head] = promise((other, 1))
    assert claimed().id == head
    [next_] = promise((other, 2))
    assert delivery(next_).not_before <= datetime.now(UTC) + timedelta(seconds=5)


def test_order_holds_with_two_schedulers_and_an_endpoint_that_fails_now_and_then(
    receiver: Receiver,
) -> None:
    lanes = [uuid4() for _ in range(4)]
    hosts = ["127.0.0.1", "127.0.0.2"]
    ids = []
    with listening(host=hosts[1], port=receiver.port) as second:
        for number in range(4):
            for place, lane in enumerate(lanes):
                ids += promise((lane, number), port=receiver.port, host=hosts[place % 2])
        schedulers = [Senders(most=SENDERS), Senders(most=SENDERS)]
        rounds = 0
        while any(delivery(id_).delivered_at is None for id_ in ids):
            rounds += 1
            # Every other time, none is taken, and each comes again.
            receiver.status = second.status = 500 if rounds % 2 else 204
            threads = [thread for senders in schedulers for thread in senders.start()]
            for thread in threads:
                thread.join(timeout=20)
            assert rounds < 40
            make_due()
    for numbers in got(receiver, second).values():
        # Each until it was taken, and only then the next one.
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(4))
    assert len(got(receiver, second)) == len(lanes)
    assert len(receiver.received) + len(second.received) > len(ids)


def test_a_slow_endpoint_holds_up_neither_others_nor_other_requests_order() -> None:
    slow = Receiver(hold=threading.Event())
    lane, other = uuid4(), uuid4()
    with listening(slow) as held, listening(Receiver(), "127.0.0.2") as quick:
        stuck = promise((lane, 1), (lane, 2), port=held.port)
        senders = Senders(most=SENDERS)
        threads = senders.start()
        assert held.got.wait(20)
        ids = promise((other, 1), (other, 2), (other, 3), port=quick.port, host="127.0.0.2")
        while any(delivery(id_).delivered_at is None for id_ in ids):
            threads += senders.start()
        assert got(quick) == {str(other): [1, 2, 3]}
        assert len(held.received) == 1
        assert slow.hold is not None
        slow.hold.set()
        for thread in threads:
            thread.join(timeout=20)
        while any(delivery(id_).delivered_at is None for id_ in stuck):
            send_all(senders)
    assert got(held) == {str(lane): [1, 2]}


def test_a_scheduler_that_died_leaves_its_message_and_the_order_to_the_next(
    receiver: Receiver,
) -> None:
    lane = uuid4()
    first, second = promise((lane, 1), (lane, 2), port=receiver.port)
    died = claimed()
    send_all()  # nothing: the claim has not run out, and the second one waits
    assert (died.id, receiver.received) == (first, [])
    make_due()
    send_all(Senders())
    assert got(receiver) == {str(lane): [1, 2]}
    record(died, Failure("status 410", is_final=True))  # it lives after all
    assert [delivery(id_).given_up_at for id_ in (first, second)] == [None, None]


def test_only_what_can_be_sent_counts_as_due() -> None:
    lanes = [uuid4() for _ in range(20)]
    promise(*((lane, number) for lane in lanes for number in range(3)))
    with transaction() as session:
        assert outbox.count_due(session, 1_000) == len(lanes)
        assert outbox.count_due(session, 7) == 7
    for _ in lanes:
        record(claimed(), Failure("timed out"))
    with transaction() as session:
        assert outbox.count_due(session, 1_000) == 0
        due = select(func.count()).where(Delivery.not_before <= func.clock_timestamp())
        assert session.scalar(due) == 0
