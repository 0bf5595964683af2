"""The log of deliveries lets go of what is over for long enough, and of nothing else."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from app.db import transaction
from app.retention import delivery_log
from app.retention.delivery_log import Clearing
from app.setting_types import SHORTEST_LOG
from app.tables import Delivery
from app.webhooks import replaying
from app.webhooks.outcomes import JITTER, PAUSES, Failure
from app.webhooks.sending import RETRY_AFTER_LIMIT
from tests.app.kept_deliveries import DAY, GONE, KEPT, age, left, old, remove, sent
from tests.app.outboxes import claimed, enqueue, record
from tests.app.query_plans import plan_of, read_by
from tests.app.recalls import Office, make_due
from tests.app.subscribers import CALLBACKS, DELIVERIES, Subscribers
from tests.app.watching import statements
from tests.app.working import NOW

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize("failure", [None, GONE])
def test_what_is_over_goes_with_its_attempts_after_its_time_and_not_before(
    failure: Failure | None,
) -> None:
    first, second = sent(failure), sent(failure)
    age(KEPT - DAY)
    assert Clearing().go_on(KEPT) == 0
    assert left() == {first, second}
    age(2 * DAY, first)
    assert Clearing().go_on(KEPT) == 1
    assert left() == {second}


def test_what_a_removed_callback_was_not_told_goes_too(client: TestClient) -> None:
    clients = Subscribers(client)
    made = clients.register()
    id_ = clients.ping(made["id"])
    client.delete(f"{CALLBACKS}/{made['id']}")
    assert Clearing().go_on(KEPT) == 0
    age(KEPT + DAY)
    assert Clearing().go_on(KEPT) == 1
    assert client.get(f"{DELIVERIES}/{id_}").status_code == 404


def test_what_is_open_stays_whatever_its_age() -> None:
    waiting = enqueue(9)
    paused = claimed()
    record(paused, Failure("timed out"))
    again = sent()
    with transaction() as session:
        assert replaying.replay(session, Delivery.id == again) == 1
    other = enqueue(9)
    age(40 * KEPT)
    assert Clearing().go_on(KEPT) == 0
    with transaction() as session:
        assert set(session.scalars(select(Delivery.id))) == {waiting, again, other}


@pytest.mark.parametrize("failure", [None, GONE])
def test_messages_of_notices_stay_since_they_show_that_recipients_were_told(
    client: TestClient, ready: Callable[..., UUID], failure: Failure | None
) -> None:
    ready("digits", ["a", "b"], NOW)
    office = Office(client)
    office.register("web", "https://checkout.example.com/")
    office.forget("a")
    make_due()
    told = claimed()
    record(told, failure)
    other = sent()
    age(40 * KEPT)
    [before] = office.notices()["items"]
    assert before["delivery"] is not None
    assert left() == {told.id, other}
    assert Clearing().go_on(KEPT) == 1
    assert left() == {told.id}
    assert office.notices()["items"] == [before]


def test_a_batch_is_bounded_and_takes_the_oldest_and_the_next_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = old(7)
    monkeypatch.setattr(delivery_log, "BATCH", 3)
    for removed, gone in ((3, 3), (3, 6), (1, 7), (0, 7)):
        assert remove() == removed
        assert left() == set(ids[gone:])


def test_a_pass_takes_batch_after_batch_until_its_time_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = old(5)
    monkeypatch.setattr(delivery_log, "BATCH", 2)
    with monkeypatch.context() as patch:
        patch.setattr(delivery_log, "PASS_SECONDS", 0.0)
        assert Clearing().go_on(KEPT) == 2
    assert left() == set(ids[2:])
    monkeypatch.setattr(delivery_log, "PASS_SECONDS", 60.0)
    assert Clearing().go_on(KEPT) == 3


def test_passes_pause_however_often_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clearing = Clearing()
    assert clearing.go_on(KEPT) == 0
    old(1)
    with statements() as asked:
        assert clearing.go_on(KEPT) == 0
    assert asked == []
    monkeypatch.setattr(delivery_log, "PAUSE_SECONDS", 0.0)
    assert clearing.go_on(KEPT) == 1


def test_the_scheduler_removes_what_its_setting_says(
    reread: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    monkeypatch.setattr(tasks, "clearing", Clearing())
    monkeypatch.setattr(delivery_log, "PAUSE_SECONDS", 0.0)
    id_ = sent()
    age(8 * DAY)
    tasks.deliver()
    assert left() == {id_}
    reread("LETHE_DELIVERY_LOG_KEPT", "P7D")
    tasks.deliver()
    assert left() == set()


def test_a_database_that_is_away_is_logged_and_the_next_pass_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise OperationalError("DELETE", {}, Exception("connection lost"))

    old(1)
    with monkeypatch.context() as patch, capture_logs() as said:
        patch.setattr(delivery_log, "remove", fail)
        assert Clearing().go_on(KEPT) == 0
    [line] = said
    assert (line["event"], line["error"]) == ("deliveries.not_removed", "OperationalError")
    with capture_logs() as said:
        assert Clearing().go_on(KEPT) == 1
    assert [(line["event"], line["number"]) for line in said] == [("deliveries.removed", 1)]


def test_what_is_over_is_found_by_its_index_however_much_is_kept() -> None:
    old(1)
    with statements() as seen:
        assert remove() == 1
    finding, *removing = [each for each in seen if "deliver" in each]
    # The driver says what it sends; here, the statement has to.
    finding = finding.replace("now() - %(now_1)s", "now() - %(now_1)s::interval")
    assert read_by(finding) == {"ix_deliveries_over"}
    assert "Index Cond" in plan_of(finding)
    # With a clock that goes on, every entry of the index would be looked at.
    by_clock = finding.replace("now()", "clock_timestamp()")
    assert by_clock != finding
    assert "Index Cond" not in plan_of(by_clock)
    assert [read_by(each) for each in removing] == [{"pk_delivery_attempts"}, {"pk_deliveries"}]


def test_the_shortest_log_outlasts_the_retries_and_what_speaks_for_an_endpoint() -> None:
    longest = [max(pause * (1 + JITTER), RETRY_AFTER_LIMIT) for pause in PAUSES]
    assert sum(longest, timedelta(0)) + DAY < SHORTEST_LOG
