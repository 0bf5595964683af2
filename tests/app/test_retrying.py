"""What needs attention says why, and is tried again with one call."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db import transaction
from app.tables import AuditEntry, Erasure
from tests.app.working import NOW, fail, give_back, hold, plan, publish

REQUESTS = "/v1/deletion-requests"
JOBS = "/v1/jobs"


@pytest.fixture
def erasures(client: TestClient) -> Callable[[str], dict[str, Any]]:
    """Return a request's erasures by the names of their models."""
    return lambda where: {e["model"]: e for e in client.get(where).json()["erasures"]}


def test_an_erasure_that_needs_attention_says_why(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    erasures: Callable[[str], dict[str, Any]],
) -> None:
    ready(samples="abc", policy=NOW)
    where = submit("a")
    (job_id,) = plan()
    assert erasures(where)["digits"]["problem"] is None
    fail(hold(job_id), "DataChanged: register the model anew")
    assert client.get(where).json()["status"] == "needs_attention"
    stopped = erasures(where)["digits"]
    assert stopped["problem"] == "DataChanged: register the model anew"
    assert stopped["job"] == str(job_id)


@pytest.mark.parametrize("by", ["request", "job"])
def test_one_call_tries_again_in_a_new_job(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    erasures: Callable[[str], dict[str, Any]],
    by: str,
) -> None:
    ready(samples="abc", policy=NOW)
    where = submit("a")
    (job_id,) = plan()
    fail(hold(job_id))
    path = where if by == "request" else f"{JOBS}/{job_id}"
    answer = client.post(path + "/retry")
    assert (answer.status_code, answer.headers["Location"]) == (202, path)
    assert answer.headers["Retry-After"]
    assert client.get(where).json()["status"] == "pending"
    waiting = erasures(where)["digits"]
    assert (waiting["status"], waiting["problem"], waiting["job"]) == ("pending", None, None)
    (again,) = plan()
    assert again != job_id
    publish(hold(again))
    assert client.get(where).json()["status"] == "completed"
    failed = client.get(f"{JOBS}/{job_id}").json()
    assert (failed["status"], failed["erasure_count"], failed["error"]) == (
        "failed",
        1,
        "no chance",
    )


def test_a_retry_says_so_in_the_log(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="abc", policy=NOW)
    where = submit("a")
    fail(hold(plan()[0]))
    client.post(where + "/retry")
    with transaction() as session:
        erasure_id = session.scalars(select(Erasure.id)).one()
        about = select(AuditEntry).where(AuditEntry.subject == erasure_id).order_by(AuditEntry.id)
        entries = session.scalars(about).all()
    assert [entry.event.removeprefix("erasure.") for entry in entries] == [
        "pending",
        "scheduled",
        "needs_attention",
        "pending",
    ]
    assert '"retried":true' in entries[-1].payload


def test_there_is_nothing_to_try_again_where_nothing_needs_attention(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="abc", policy=NOW)
    where = submit("a")
    (job_id,) = plan()
    for path in (where, f"{JOBS}/{job_id}"):
        refused = client.post(path + "/retry")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:lethe:problem:conflict")
    fail(hold(job_id))
    assert client.post(where + "/retry").status_code == 202
    assert client.post(where + "/retry").status_code == 409
    assert client.post(f"{JOBS}/{job_id}/retry").status_code == 409
    for path in (f"{REQUESTS}/{uuid4()}", f"{JOBS}/{uuid4()}"):
        assert client.post(path + "/retry").status_code == 404


def test_a_request_is_tried_again_in_the_models_that_failed_and_in_no_other(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    erasures: Callable[[str], dict[str, Any]],
) -> None:
    fine = ready("fine", "abc", NOW)
    ready("broken", "abc", NOW)
    where, other = submit("a"), submit("b")
    for held in map(hold, plan()):
        if held.model_id == fine:
            publish(held)
        else:
            fail(held)
    client.post(where + "/retry")
    assert {name: e["status"] for name, e in erasures(where).items()} == {
        "fine": "completed",
        "broken": "pending",
    }
    assert client.get(where).json()["status"] == "in_progress"
    assert erasures(other)["broken"]["status"] == "needs_attention"


def test_a_job_is_tried_again_with_all_that_it_left(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="abc", policy=NOW)
    wheres = [submit(sample) for sample in "abc"]
    (job_id,) = plan()
    fail(hold(job_id))
    assert client.post(f"{JOBS}/{job_id}/retry").status_code == 202
    (again,) = plan()
    assert len(hold(again).forget_digests) == 3
    assert {client.get(where).json()["status"] for where in wheres} == {"in_progress"}


def test_a_culprit_that_is_tried_again_stays_alone(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    digest: Callable[[str], bytes],
) -> None:
    ready(samples="abc", policy=NOW)
    culprit, innocent = submit("a"), submit("b")
    while jobs := plan():
        held = hold(jobs[0])
        if digest("a") in held.forget_digests:
            give_back(held, 1)
        else:
            publish(held)
    assert client.get(innocent).json()["status"] == "completed"
    client.post(culprit + "/retry")
    submit("c")
    batches = []
    while jobs := plan():
        held = hold(jobs[0])
        batches.append(held.forget_digests)
        give_back(held, 1)
    assert sorted(batches, key=len) == batches
    assert {digest("a")} in batches
    assert {digest("c")} in batches
