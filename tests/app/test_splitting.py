"""A batch that fails for one erasure comes apart until that one stands alone."""

import math
from collections.abc import Callable, Collection
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.db import transaction
from app.jobs.leases import Job
from app.tables import Cohort, Erasure, UnlearningJob
from lethe.policy import Batching, Policy
from tests.app.working import (
    FAILED,
    INCONCLUSIVE,
    NOT_RUN,
    NOW,
    expire,
    fail,
    give_back,
    hold,
    let_leases_run_out,
    plan,
    publish,
    refuse,
)

SAMPLES = [f"s{index}" for index in range(16)]
MOST_JOBS = 60


def splitting(most: int) -> Policy:
    batching = NOW.batching.model_copy(update={"max_splits": most})
    return NOW.model_copy(update={"batching": batching})


@pytest.fixture
def drain(digest: Callable[[str], bytes]) -> Callable[..., int]:
    """Run whatever can be planned; a job fails that holds a culprit. Return how many ran."""

    def work(*culprits: str, how: Callable[[Job], None] = lambda job: give_back(job, 1)) -> int:
        guilty = {digest(culprit) for culprit in culprits}
        for ran in range(MOST_JOBS):
            jobs = plan()
            if not jobs:
                return ran
            job = hold(jobs[0])
            if guilty & job.forget_digests:
                how(job)
            else:
                publish(job)
        raise AssertionError("the splitting comes to no end")

    return work


def statuses(client: TestClient, wheres: Collection[str]) -> list[str]:
    return [client.get(where).json()["status"] for where in wheres]


def erasure_counts() -> list[int]:
    with transaction() as session:
        counts = select(UnlearningJob.erasure_count).order_by(UnlearningJob.created_at)
        return list(session.scalars(counts))


@pytest.mark.parametrize(
    ("size", "culprit"), [(2, 0), (3, 1), (16, 11)], ids=lambda value: str(value)
)
def test_one_culprit_ends_alone_and_everybody_else_is_forgotten(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    drain: Callable[..., int],
    size: int,
    culprit: int,
) -> None:
    ready(samples=SAMPLES, policy=NOW)
    wheres = [submit(sample) for sample in SAMPLES[:size]]
    further = drain(SAMPLES[culprit]) - 1
    assert further <= 2 * math.ceil(math.log2(size)) + 1
    expected = ["completed"] * size
    expected[culprit] = "needs_attention"
    assert statuses(client, wheres) == expected
    assert erasure_counts()[0] == size
    assert erasure_counts().count(1) >= 1


@pytest.mark.parametrize(
    "how",
    [
        lambda job: give_back(job, 1),
        refuse,
        lambda job: refuse(job, INCONCLUSIVE, FAILED),
        lambda job: refuse(job, NOT_RUN),
        lambda job: (let_leases_run_out(), expire(1)),
    ],
    ids=["error", "failed", "failed in the end", "no method ran", "silence"],
)
def test_every_failure_that_may_be_one_erasures_fault_splits_the_batch(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    drain: Callable[..., int],
    how: Callable[[Job], None],
) -> None:
    ready(samples=SAMPLES, policy=NOW)
    wheres = [submit(sample) for sample in SAMPLES[:3]]
    drain(SAMPLES[0], how=how)
    assert statuses(client, wheres) == ["needs_attention", "completed", "completed"]


@pytest.mark.parametrize(
    "how",
    [
        fail,
        lambda job: refuse(job, INCONCLUSIVE, INCONCLUSIVE),
        lambda job: refuse(job, INCONCLUSIVE, NOT_RUN),
    ],
    ids=["permanent", "all inconclusive", "inconclusive or not run"],
)
def test_a_failure_that_smaller_batches_meet_as_well_splits_nothing(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    drain: Callable[..., int],
    how: Callable[[Job], None],
) -> None:
    ready(samples=SAMPLES, policy=NOW)
    wheres = [submit(sample) for sample in SAMPLES[:4]]
    assert drain(SAMPLES[0], how=how) == 1
    assert statuses(client, wheres) == ["needs_attention"] * 4
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Cohort)) == 0


@pytest.mark.parametrize(("most", "jobs"), [(0, 1), (1, 1), (3, 3), (4, 5)])
def test_a_batch_is_split_into_no_more_parts_than_its_policy_allows(
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    drain: Callable[..., int],
    most: int,
    jobs: int,
) -> None:
    ready(samples=SAMPLES, policy=splitting(most))
    for sample in SAMPLES[:8]:
        submit(sample)
    # All are culprits, so that nothing but the bound ends it.
    assert drain(*SAMPLES) == jobs
    with transaction() as session:
        parts = session.scalar(select(func.count()).select_from(Cohort))
        statuses = session.scalars(select(Erasure.status).distinct()).all()
    assert parts == jobs - 1
    assert statuses == ["needs_attention"]


def test_what_comes_in_meanwhile_does_not_join_the_parts(
    ready: Callable[..., UUID], submit: Callable[..., str], digest: Callable[[str], bytes]
) -> None:
    ready(samples=SAMPLES, policy=NOW)
    for sample in SAMPLES[:4]:
        submit(sample)
    give_back(hold(plan()[0]), 1)
    submit(SAMPLES[4])
    batches = []
    while jobs := plan():
        held = hold(jobs[0])
        batches.append(held.forget_digests)
        publish(held)
    wanted = [SAMPLES[:2], SAMPLES[2:4], SAMPLES[4:5]]
    assert batches == [{digest(sample) for sample in part} for part in wanted]


def test_a_batch_of_many_models_splits_in_the_one_that_failed(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    swift, slow = ready("swift", SAMPLES, NOW), ready("slow", SAMPLES, NOW)
    wheres = [submit(sample) for sample in SAMPLES[:2]]
    for held in map(hold, plan()):
        if held.model_id == swift:
            publish(held)
        else:
            give_back(held, 1)
    assert statuses(client, wheres) == ["in_progress"] * 2
    (job_id,) = plan()
    held = hold(job_id)
    assert (held.model_id, len(held.forget_digests)) == (slow, 1)


def test_a_batch_that_failed_once_is_tried_again_whole(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=SAMPLES, policy=NOW)
    for sample in SAMPLES[:4]:
        submit(sample)
    (job_id,) = plan()
    give_back(hold(job_id), attempts=2)
    held = hold(job_id)
    assert (len(held.forget_digests), held.failures) == (4, 1)
    give_back(held, attempts=2)
    assert len(hold(plan()[0]).forget_digests) == 2


def test_a_policy_that_bounds_the_parts_is_accepted_and_checked() -> None:
    assert Batching(max_splits=0).max_splits == 0
    with pytest.raises(ValueError, match="max_splits"):
        Batching(max_splits=-1)
