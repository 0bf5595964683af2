"""Withdrawals that come late, come again, or concern what nobody works on any more."""

import base64
import json
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app.errors import LeaseLost
from lethe.policy import Debt
from tests.app.withdrawals import Desk
from tests.app.working import (
    DEBT,
    NOW,
    fail,
    hold,
    job_of,
    plan,
    publish,
)

REQUESTS = "/v1/deletion-requests"
JOBS = "/v1/jobs"


def test_it_is_too_late_once_all_is_forgotten(
    ready: Callable[..., UUID], submit: Callable[..., str], desk: Desk
) -> None:
    ready(samples="abcd", policy=NOW)
    where = submit("a")
    publish(hold(plan()[0]))
    assert desk.too_late(where)
    assert desk.status(where) == "completed"


def test_a_request_to_two_models_is_withdrawn_from_the_one_that_has_not_forgotten_it(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    models = {name: ready(name, "abcd", NOW) for name in ("slow", "swift")}
    where = submit("a")
    jobs = [hold(job_id) for job_id in plan()]
    publish(next(job for job in jobs if job.model_id == models["swift"]))
    answer = desk.cancel(where)
    assert (answer["cancelled"], answer["too_late"]) == (["slow"], ["swift"])
    assert answer["request"]["status"] == "completed"
    with pytest.raises(LeaseLost):
        publish(next(job for job in jobs if job.model_id == models["slow"]))
    assert plan() == []
    assert {name: desk.forgotten(id_) for name, id_ in models.items()} == {"slow": "", "swift": "a"}
    receipt = client.get(where + "/receipt").json()
    statement = json.loads(base64.b64decode(receipt["envelope"]["payload"]))
    assert {e["name"]: e["status"] for e in statement["predicate"]["erasures"]} == {
        "slow": "cancelled",
        "swift": "completed",
    }


def test_a_batch_is_taken_back_three_times_and_then_comes_to_its_end(
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    model_id = ready(samples="abcdef", policy=NOW)
    wheres = [submit(sample) for sample in "abcdef"]
    (job_id,) = plan()
    for where in wheres[:3]:
        hold(job_id)
        desk.cancel(where)
    desk.cancel(wheres[3])  # it waits: that interrupts nobody
    assert job_of(job_id).interruptions == 3
    last = hold(job_id)
    assert desk.too_late(wheres[4])
    assert desk.status(wheres[4]) == "in_progress"
    publish(last)
    assert desk.forgotten(model_id) == "ef"


def test_a_withdrawal_that_is_sent_again_gets_the_same_answer(
    ready: Callable[..., UUID], submit: Callable[..., str], desk: Desk
) -> None:
    ready("kept", "ab", NOW)
    swift = ready("swift", "ab", NOW)
    where = submit("a")
    publish(next(job for job in map(hold, plan()) if job.model_id == swift))
    first = desk.cancel(where)
    assert (first["cancelled"], first["too_late"]) == (["kept"], ["swift"])
    assert desk.cancel(where) == first


def test_a_model_that_becomes_ready_later_adds_nothing_to_what_was_withdrawn(
    register: Callable[..., UUID],
    accept: Callable[..., None],
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    ready("known", "b", NOW)
    model_id = register("late", NOW)
    where, partly, other = submit("a"), submit("a", "b"), submit("a")
    for location in (where, partly):
        assert desk.cancel(location)["request"]["status"] == "cancelled"
    accept(model_id, "ab")
    assert [desk.status(location) for location in (where, partly, other)] == [
        "cancelled",
        "cancelled",
        "pending",
    ]
    (job_id,) = plan()
    assert job_of(job_id).erasure_count == 1


def test_what_others_forgot_is_still_withdrawn_from_a_model_that_is_being_checked(
    register: Callable[..., UUID],
    accept: Callable[..., None],
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    ready("known", "a", NOW)
    late = register("late", NOW)
    where, other = submit("a"), submit("a")
    publish(hold(plan()[0]))
    answer = desk.cancel(where)
    assert (answer["cancelled"], answer["too_late"]) == ([], ["known"])
    accept(late, "ab")
    # Whoever did not withdraw is not done yet, although it looked so.
    assert [desk.status(where), desk.status(other)] == ["completed", "in_progress"]
    (job_id,) = plan()
    assert job_of(job_id).erasure_count == 1
    publish(hold(job_id))
    assert desk.status(other) == "completed"
    assert desk.forgotten(late) == "a"


def test_what_needs_attention_can_be_withdrawn(
    ready: Callable[..., UUID], submit: Callable[..., str], desk: Desk, client: TestClient
) -> None:
    ready(samples="abcd", policy=NOW)
    where = submit("a")
    (job_id,) = plan()
    fail(hold(job_id))
    answer = desk.cancel(where)
    assert answer["cancelled"] == ["digits"]
    assert [(e["status"], e["problem"]) for e in answer["request"]["erasures"]] == [
        ("cancelled", None)
    ]
    assert client.get(f"{JOBS}/{job_id}").json()["erasure_count"] == 1  # that is history
    assert client.post(where + "/retry").status_code == 409


def test_there_is_nothing_to_withdraw_where_nothing_was_found(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str], desk: Desk
) -> None:
    ready(samples="abcd", policy=NOW)
    assert desk.too_late(submit("nobody"))
    unknown = client.post(f"{REQUESTS}/{uuid4()}/cancel")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:lethe:problem:not-found")


@pytest.mark.parametrize("running", [False, True])
def test_a_rebase_goes_on_when_all_that_came_with_it_is_withdrawn(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
    running: bool,
) -> None:
    debt = Debt(max_share=0.2, max_drift=DEBT.max_drift)
    ready(samples="abcd", policy=NOW.model_copy(update={"debt": debt}))
    submit("a")
    publish(hold(plan()[0]))
    where = submit("b")
    (job_id,) = plan()
    held = hold(job_id) if running else None
    assert desk.cancel(where)["cancelled"] == ["digits"]
    if held is not None:
        with pytest.raises(LeaseLost):
            publish(held, "exact")
    job = job_of(job_id)
    assert (job.status, job.rebase, job.erasure_count) == ("queued", True, 0)
    publish(hold(job_id), "exact")
    assert client.get("/v1/models/digits/current").json()["number"] == 3
