"""Unlearning debt: what was forgotten approximately, and the retrain that pays it off."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from app.db import transaction
from app.deletions import planner
from app.derived import references
from app.jobs import leases, outcome, publication
from app.jobs.leases import Job
from app.jobs.publication import NewVersion
from app.tables import Erasure, ReferenceSet, RegisteredModel, UnlearningJob
from lethe.policy import Batching, Debt, Policy, References

LEASE = timedelta(seconds=60)
SAMPLES = [f"sample-{index}" for index in range(10)]
NOW = Batching(max_wait=timedelta(0))
DAY = timedelta(days=1)


def policy(**fields: Any) -> Policy:
    return Policy(
        **{
            "batching": NOW,
            "debt": Debt(max_share=0.25, max_drift=1.0),
            "references": References(count=0),
            **fields,
        }
    )


def plan() -> list[UUID]:
    with transaction() as session:
        return planner.plan(session)


def claim(job_id: UUID) -> Job:
    with transaction() as session:
        job = leases.claim(session, job_id, "test", LEASE)
    assert job is not None
    return job


@pytest.fixture
def forget(client: TestClient) -> Callable[..., Job]:
    """Forget samples by one job; how, and how far the weights went, is the test's to say."""

    def make(*samples: str, guarantee: str = "approximate", drift: float = 0.1) -> Job:
        if samples:
            client.post("/v1/deletion-requests", json={"sample_ids": samples})
        (job_id,) = plan()
        job = claim(job_id)
        digest = "sha256:" + job.id.hex * 2
        new = NewVersion(digest, 1, "any", guarantee, "passed", drift)
        with transaction() as session:
            publication.publish(session, job, new, [])
        return job

    return make


def debt(client: TestClient) -> Any:
    return client.get("/v1/models/digits").json()["debt"]


def test_approximate_versions_add_to_the_debt_and_an_exact_one_pays_it(
    client: TestClient, ready: Callable[..., UUID], forget: Callable[..., Job]
) -> None:
    ready(samples=SAMPLES, policy=policy())
    assert debt(client) == {"samples": 0, "share": 0.0, "drift": 0.0}
    forget(SAMPLES[0], drift=0.25)
    forget(SAMPLES[1], drift=0.5)
    assert debt(client) == {"samples": 2, "share": 0.2, "drift": 0.75}
    forget(SAMPLES[2], guarantee="exact", drift=0.5)
    assert debt(client) == {"samples": 0, "share": 0.0, "drift": 0.0}


@pytest.mark.parametrize(
    "bound", [Debt(max_share=0.25, max_drift=9.0), Debt(max_share=1.0, max_drift=0.25)]
)
def test_debt_beyond_a_bound_schedules_a_retrain_that_nobody_asked_for(
    client: TestClient,
    ready: Callable[..., UUID],
    forget: Callable[..., Job],
    digest: Callable[[str], bytes],
    bound: Debt,
) -> None:
    ready(samples=SAMPLES, policy=policy(debt=bound))
    forget(*SAMPLES[:2], drift=0.2)
    assert plan() == []
    forget(SAMPLES[2], drift=0.2)
    job = forget(guarantee="exact")
    assert job.ladder == ("retrain",)
    # The retrained weights are held against all that was only approximately forgotten.
    assert job.forget_digests == {digest(sample) for sample in SAMPLES[:3]}
    assert job.forgotten_digests == frozenset()
    shown = client.get(f"/v1/jobs/{job.id}").json()
    assert (shown["rebase"], shown["sample_count"], shown["status"]) == (True, 0, "published")
    assert debt(client)["samples"] == 0
    assert plan() == []


def test_a_rebase_takes_along_what_waits_even_if_it_is_not_due(
    client: TestClient,
    ready: Callable[..., UUID],
    forget: Callable[..., Job],
    digest: Callable[[str], bytes],
) -> None:
    ready(samples=SAMPLES, policy=policy(batching=Batching(max_samples=3)))
    forget(*SAMPLES[:3])
    waiting = client.post("/v1/deletion-requests", json={"sample_ids": [SAMPLES[3]]})
    job = forget(guarantee="exact")
    assert job.ladder == ("retrain",)
    assert job.forget_digests == {digest(sample) for sample in SAMPLES[:4]}
    assert client.get(waiting.headers["Location"]).json()["status"] == "completed"


def test_only_what_was_forgotten_since_the_last_exact_version_is_owed(
    ready: Callable[..., UUID], forget: Callable[..., Job], digest: Callable[[str], bytes]
) -> None:
    ready(samples=SAMPLES, policy=policy())
    forget(SAMPLES[0])
    forget(SAMPLES[1], guarantee="exact")
    forget(*SAMPLES[2:5])
    job = forget(guarantee="exact")
    assert job.forget_digests == {digest(sample) for sample in SAMPLES[2:5]}
    assert job.forgotten_digests == {digest(sample) for sample in SAMPLES[:2]}


def test_a_model_that_may_not_be_retrained_is_not(
    ready: Callable[..., UUID], forget: Callable[..., Job]
) -> None:
    ready(samples=SAMPLES, policy=policy(ladder=("iau", "nabla_tau")))
    forget(*SAMPLES[:3])
    assert plan() == []


def test_a_rebase_that_was_refused_is_not_tried_every_few_seconds(
    client: TestClient, ready: Callable[..., UUID], forget: Callable[..., Job]
) -> None:
    ready(samples=SAMPLES, policy=policy())
    forget(*SAMPLES[:3])
    (job_id,) = plan()
    with transaction() as session:
        outcome.refuse(session, claim(job_id), [])
    assert plan() == []
    assert forget(SAMPLES[3]).ladder == ("iau", "nabla_tau", "retrain")


def test_a_rebase_keeps_its_distance_from_the_job_before(
    ready: Callable[..., UUID], forget: Callable[..., Job]
) -> None:
    ready(samples=SAMPLES, policy=policy(batching=Batching(max_samples=3, min_spacing=DAY)))
    forget(*SAMPLES[:3])
    assert plan() == []
    with transaction() as session:
        session.execute(update(UnlearningJob).values(created_at=UnlearningJob.created_at - DAY))
    assert forget(guarantee="exact").ladder == ("retrain",)


@pytest.fixture
def building(client: TestClient, ready: Callable[..., UUID]) -> UUID:
    """A model whose references are under way, and one request for it."""
    chosen = policy(references=References(count=4, max_delay=timedelta(hours=2)))
    model_id = ready(samples=SAMPLES, policy=chosen)
    with transaction() as session:
        version = client.get("/v1/models/digits/current").json()
        assert version["number"] == 1
        found = session.get_one(RegisteredModel, model_id)
        assert found.current_version_id is not None
        assert references.begin(session, model_id, found.current_version_id, 4) is not None
    client.post("/v1/deletion-requests", json={"sample_ids": [SAMPLES[0]], "regulation": "gdpr"})
    return model_id


def test_erasures_wait_for_references_that_are_under_way(
    client: TestClient, building: UUID
) -> None:
    assert plan() == []
    shown = client.get("/v1/models/digits").json()["references"]
    assert (shown["status"], shown["planned"], shown["done"]) == ("building", 4, 0)
    with transaction() as session:
        session.execute(update(ReferenceSet).values(status="failed"))
    assert len(plan()) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"created_at": text("now() - interval '2 hours'")},
        {"due_at": text("now() + interval '2 days'")},
    ],
    ids=["too long", "a deadline is near"],
)
def test_erasures_do_not_wait_for_references_beyond_the_policy(
    building: UUID, values: dict[str, Any]
) -> None:
    with transaction() as session:
        session.execute(update(Erasure).values(**values))
    assert len(plan()) == 1
