"""Which erasures become a job, and when."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.db import transaction
from app.deletions import planner
from lethe.policy import Batching, Debt, Policy

REQUESTS = "/v1/deletion-requests"
NOW = Policy(batching=Batching(max_wait=timedelta(0)), debt=Debt(max_share=1.0))


def plan() -> list[UUID]:
    with transaction() as session:
        return planner.plan(session)


def test_pending_erasures_of_a_model_become_one_job(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready("one", ["a", "b", "c"], NOW)
    ready("two", ["c", "d"], NOW)
    where = [submit("a"), submit("b", "c")]
    assert len(plan()) == 2
    assert plan() == []
    for location in where:
        assert client.get(location).json()["status"] == "in_progress"
    jobs = client.get("/v1/jobs").json()["items"]
    assert {j["model"]: (j["erasure_count"], j["sample_count"]) for j in jobs} == {
        "one": (2, 3),
        "two": (1, 1),
    }


@pytest.mark.parametrize(
    ("batching", "due"),
    [
        (Batching(max_wait=timedelta(hours=1), deadline_headroom=timedelta(days=3)), False),
        (Batching(max_wait=timedelta(0)), True),
        (Batching(max_samples=2), True),
        (Batching(max_samples=3), False),
        (Batching(deadline_headroom=timedelta(days=40)), True),
    ],
)
def test_a_batch_waits_for_the_first_bound_of_its_policy(
    ready: Callable[..., UUID], submit: Callable[..., str], batching: Batching, due: bool
) -> None:
    ready(samples=["a", "b", "c"], policy=Policy(batching=batching))
    submit("a", "b")
    assert bool(plan()) is due


def test_the_most_urgent_erasures_go_first_and_none_is_split(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready(samples=list("abcdef"), policy=Policy(batching=Batching(max_samples=3)))
    for samples, regulation in (("ab", "none"), ("cd", "ccpa"), ("e", "gdpr")):
        client.post(REQUESTS, json={"sample_ids": list(samples), "regulation": regulation})
    plan()
    items = client.get(REQUESTS, params={"status": "in_progress"}).json()["items"]
    assert {item["regulation"] for item in items} == {"gdpr", "ccpa"}


def test_one_planner_at_a_time(ready: Callable[..., UUID], submit: Callable[..., str]) -> None:
    ready(policy=NOW)
    submit("a")
    with transaction() as session:
        assert len(planner.plan(session)) == 1
        assert plan() == []  # another session, while the first holds the lock
