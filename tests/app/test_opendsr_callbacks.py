"""What a controller is told of by OpenDSR, and how it knows that it may believe that."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.db import transaction
from app.deletions import planner
from app.opendsr import announcing
from app.tables import DeletionRequest, Delivery, SubjectRequest
from tests.app import working
from tests.app.controllers import DOMAIN, MARK, Controller, Reread, asking, set_up
from tests.app.outboxes import send_all
from tests.app.recalls import make_due
from tests.app.receivers import Received, Receiver, listening
from tests.app.watching import statements
from tests.app.working import NOW

Ready = Callable[..., UUID]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def controller(
    reread: Reread, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Controller]:
    reread("LETHE_MODE", "embedded")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")
    with set_up(reread, tmp_path):
        yield Controller(request.getfixturevalue("client"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as started:
        yield started


def at(receiver: Receiver, path: str = "/opendsr/callbacks?token=t0k3n") -> str:
    return f"http://127.0.0.1:{receiver.port}{path}"


class Broken(Exception):
    pass


def plan_and_break() -> None:
    with transaction() as session:
        assert planner.plan(session)
        raise Broken


def promised() -> list[Delivery]:
    with transaction() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.position)))


def believed(controller: Controller, callback: Received) -> dict[str, Any]:
    """Read a callback as 8.8 asks: not before its signature was checked."""
    assert callback.headers["Content-Type"] == "application/json"
    assert controller.believes(callback.headers, callback.body)
    told: dict[str, Any] = json.loads(callback.body)
    return told


def test_each_change_is_told_to_each_address_in_order_and_signed(
    controller: Controller, ready: Ready, receiver: Receiver
) -> None:
    ready(policy=NOW)
    with listening() as second:
        body = asking("a", "in no model", status_callback_urls=[at(receiver), at(second)])
        receipt = controller.ask(body)
        working.publish(working.hold(*working.plan()))
        looked = controller.look(body["subject_request_id"])
        send_all()
        send_all()
    own = looked["extensions"][DOMAIN]
    begun = {
        "controller_id": "operator",
        "expected_completion_time": receipt["expected_completion_time"],
        "subject_request_id": body["subject_request_id"],
        "request_status": "in_progress",
        "extensions": {DOMAIN: {**own, "status": "in_progress"}},
    }
    done = {
        **begun,
        "expected_completion_time": looked["expected_completion_time"],
        "request_status": "completed",
        "results_url": looked["results_url"],
        "results_count": 1,
        "extensions": {DOMAIN: {**own, "status": "completed"}},
    }
    for one in (receiver, second):
        told = [believed(controller, callback) for callback in one.received]
        url = {"status_callback_url": at(one)}
        assert told == [begun | url, done | url]
        assert {callback.path for callback in one.received} == {"/opendsr/callbacks?token=t0k3n"}
    first, last = receiver.received
    # The controls: a byte that was changed, and the signature of another body.
    assert not controller.believes(first.headers, first.body.replace(b"gress", b"gresz"))
    assert not controller.believes(last.headers, first.body)


def test_what_is_settled_at_once_is_told_all_the_same(
    controller: Controller, ready: Ready, receiver: Receiver
) -> None:
    ready()
    controller.ask(asking("in no model", status_callback_urls=[at(receiver)]))
    send_all()
    [callback] = receiver.received
    told = believed(controller, callback)
    assert (told["request_status"], told["results_count"]) == ("completed", 0)
    assert told["extensions"][DOMAIN]["status"] == "nothing_found"


def test_what_a_controller_or_the_operator_ends_is_told(
    controller: Controller, ready: Ready, receiver: Receiver
) -> None:
    ready()
    bodies = [asking("a", status_callback_urls=[at(receiver)]) for _ in range(2)]
    for body in bodies:
        controller.ask(body)
    controller.cancel(bodies[0]["subject_request_id"])
    controller.cancel(bodies[0]["subject_request_id"])
    own = controller.look(bodies[1]["subject_request_id"])["extensions"][DOMAIN]
    url = f"/v1/deletion-requests/{own['deletion_request']}/reject"
    assert controller.client.post(url, json={"reason": "no_match"}).status_code == 200
    send_all()
    told = [believed(controller, callback) for callback in receiver.received]
    assert [each["request_status"] for each in told] == ["cancelled", "cancelled"]
    by_id = {each["subject_request_id"]: each["extensions"][DOMAIN] for each in told}
    assert "reason" not in by_id[bodies[0]["subject_request_id"]]
    assert by_id[bodies[1]["subject_request_id"]]["reason"] == "no_match"


def test_a_change_that_opendsr_has_no_word_for_is_not_told(
    controller: Controller, ready: Ready
) -> None:
    ready(policy=NOW)
    body = asking("a", status_callback_urls=["https://controller.example.com/x"])
    controller.ask(body)
    working.refuse(working.hold(*working.plan()))
    looked = controller.look(body["subject_request_id"])
    assert looked["extensions"][DOMAIN]["status"] == "needs_attention"
    assert [row.event for row in promised()] == ["opendsr.in_progress"]


def test_nothing_is_told_of_what_was_rolled_back(controller: Controller, ready: Ready) -> None:
    ready(policy=NOW)
    body = asking("a", status_callback_urls=["https://controller.example.com/x"])
    controller.ask(body)
    with pytest.raises(Broken):
        plan_and_break()
    assert promised() == []
    # The change is news until it has been told.
    working.plan()
    assert [row.event for row in promised()] == ["opendsr.in_progress"]


def test_a_callback_that_fails_is_sent_again_before_the_next_one(
    controller: Controller, ready: Ready
) -> None:
    ready(policy=NOW)
    with listening(Receiver(status=500)) as receiver:
        body = asking("a", status_callback_urls=[at(receiver)])
        controller.ask(body)
        working.publish(working.hold(*working.plan()))
        send_all()
        assert len(receiver.received) == 1
        receiver.status = 202
        make_due()
        send_all()
        send_all()
    told = [believed(controller, callback) for callback in receiver.received]
    assert [each["request_status"] for each in told] == ["in_progress", "in_progress", "completed"]
    assert told[0] == told[1]
    listed = controller.client.get("/v1/deliveries").json()["items"]
    assert [each["state"] for each in listed] == ["delivered", "delivered"]


def test_a_process_without_the_key_sends_nothing_and_one_that_has_it_does(
    controller: Controller, ready: Ready, receiver: Receiver, reread: Reread, tmp_path: Path
) -> None:
    ready()
    controller.ask(asking("in no model", status_callback_urls=[at(receiver)]))
    for missing in ({"KEY": ""}, {"DOMAIN": "", "KEY": "", "CERTIFICATE_FILE": ""}):
        with set_up(reread, tmp_path, **missing):
            make_due()
            send_all()
        assert promised()[0].problem == "not signing"
    assert receiver.received == []
    with set_up(reread, tmp_path):
        make_due()
        send_all()
        controller.discover()
        believed(controller, *receiver.received)


def test_many_requests_are_told_of_in_as_many_statements_as_one(controller: Controller) -> None:
    asked_of: dict[int, int] = {}
    for _ in range(7):
        controller.ask(asking("a", status_callback_urls=["https://controller.example.com/x"]))
    for number in (1, 7):
        with transaction() as session:
            session.execute(update(SubjectRequest).values(told_status="in_progress"))
            requests = session.scalars(select(DeletionRequest)).all()[:number]
            before = len(promised())
            with statements() as asked:
                announcing.announce(session, requests)
            asked_of[number] = len(asked)
        assert len(promised()) - before == number
    assert asked_of[7] == asked_of[1]


def test_no_sample_is_told_to_anybody(controller: Controller, ready: Ready) -> None:
    ready(samples=[MARK], policy=NOW)
    controller.ask(asking(MARK, status_callback_urls=["https://controller.example.com/x"]))
    working.publish(working.hold(*working.plan()))
    told = promised()
    assert len(told) == 2
    assert [row for row in told if MARK in row.payload] == []


def test_workers_and_scheduler_know_of_controllers_without_torch(
    environment: dict[str, str],
) -> None:
    # To import what tells controllers is to have it told, and signed.
    program = (
        "import sys, workers.tasks; "
        "print('app.opendsr.announcing' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False"]
