"""What a withdrawal achieves at each point of a request's life, and whether its answer is true."""

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.errors import LeaseLost
from tests.app.withdrawals import Desk
from tests.app.working import (
    NOW,
    claim,
    fail,
    give_back,
    hold,
    job_of,
    plan,
    publish,
    record,
    refuse,
    release,
    renew,
)

REQUESTS = "/v1/deletion-requests"
JOBS = "/v1/jobs"


def test_what_is_withdrawn_before_batching_never_reaches_a_job(
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    model_id = ready(samples="abcd", policy=NOW)
    where = submit("a")
    submit("b")
    answer = desk.cancel(where)
    assert (answer["cancelled"], answer["too_late"]) == (["digits"], [])
    assert answer["request"]["status"] == "cancelled"
    assert answer["request"]["cancelled_at"] is not None
    assert answer["request"]["finished_at"] is not None
    (job_id,) = plan()
    publish(hold(job_id))
    assert desk.forgotten(model_id) == "b"
    assert plan() == []


def test_a_queued_job_loses_what_is_withdrawn_and_goes_on_with_the_rest(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    model_id = ready(samples="abcd", policy=NOW)
    where, other = submit("a", "b"), submit("b", "c")
    (job_id,) = plan()
    before = client.get(f"{JOBS}/{job_id}").json()
    assert (before["erasure_count"], before["sample_count"]) == (2, 3)
    answer = desk.cancel(where)
    assert [(e["status"], e["job"]) for e in answer["request"]["erasures"]] == [("cancelled", None)]
    after = client.get(f"{JOBS}/{job_id}").json()
    assert (after["status"], after["erasure_count"], after["sample_count"]) == ("queued", 1, 2)
    assert after["due_at"] == client.get(other).json()["due_at"] != before["due_at"]
    publish(hold(job_id))
    assert (desk.status(where), desk.status(other)) == ("cancelled", "completed")
    assert desk.forgotten(model_id) == "bc"  # what both asked for, and the other alone


@pytest.mark.parametrize("running", [False, True])
def test_a_job_without_anything_left_to_forget_is_cancelled(
    ready: Callable[..., UUID], submit: Callable[..., str], desk: Desk, running: bool
) -> None:
    ready(samples="abcd", policy=NOW)
    where = submit("a")
    (job_id,) = plan()
    held = hold(job_id) if running else None
    assert desk.cancel(where)["cancelled"] == ["digits"]
    job = job_of(job_id)
    assert (job.status, job.erasure_count, job.sample_count) == ("cancelled", 0, 0)
    assert job.finished_at is not None
    assert job.lease_expires_at is None
    if held is not None:
        with pytest.raises(LeaseLost):
            publish(held)
    assert claim(job_id) is None
    submit("b")
    assert len(plan()) == 1  # the model is free for the next job


def test_a_running_job_is_taken_back_and_the_rest_is_forgotten_later(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    desk: Desk,
) -> None:
    model_id = ready(samples="abcd", policy=NOW)
    where, other = submit("a"), submit("b", "c")
    (job_id,) = plan()
    held = hold(job_id)
    assert desk.cancel(where)["cancelled"] == ["digits"]
    assert desk.status(other) == "in_progress"
    for write in (renew, record, publish, refuse, fail, give_back, release):
        with pytest.raises(LeaseLost):
            write(held)
    job = client.get(f"{JOBS}/{job_id}").json()
    assert (job["status"], job["interruptions"], job["failures"]) == ("queued", 1, 0)
    assert (job["progress"], job["rungs"], job["error"]) == (None, [], None)
    assert desk.forgotten(model_id) == ""
    again = hold(job_id)
    assert len(again.forget_digests) == 2
    assert again.fence > held.fence
    publish(again)
    assert (desk.status(where), desk.status(other)) == ("cancelled", "completed")
    assert desk.forgotten(model_id) == "bc"
