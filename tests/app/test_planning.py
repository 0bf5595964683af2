"""Which erasures become a job, and when."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update

from app.db import transaction
from app.deletions import planner
from app.deletions.planner import Due, Standing
from app.tables import Erasure, UnlearningJob
from lethe.policy import Batching, Debt, Policy, References
from tests.app.working import NOW, hold, plan, publish, refuse

REQUESTS = "/v1/deletion-requests"
HOUR, DAY, MOMENT = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
AT = datetime(2026, 3, 1, tzinfo=UTC)
# A model of ten samples with one erasure pending since now, and nothing else to be said of it.
QUIET = Standing(uuid4(), {}, 10, 0, 0.0, False, False, None, AT, None, False)
POLICY = Policy(
    batching=Batching(max_wait=HOUR, deadline_headroom=3 * DAY, min_spacing=timedelta(minutes=10)),
    references=References(max_delay=2 * HOUR),
    debt=Debt(max_share=0.5, max_drift=1.0),
)
WAITED, URGENT = {"oldest_at": AT - HOUR}, {"nearest_due_at": AT + 3 * DAY}
OWING, SPACED = {"debt_samples": 6}, {"last_job_at": AT - timedelta(minutes=10) + MOMENT}
PARTS, BUILDING = {"has_parts": True}, {"building": True}


def due() -> list[UUID]:
    with transaction() as session:
        return planner.due(session)


def change(table: type[Any], **values: Any) -> None:
    with transaction() as session:
        session.execute(update(table).values(**values))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Due.A_FULL_BATCH),
        ({"oldest_at": None}, Due.NOTHING),
        (WAITED, Due.ANYTHING),
        ({"oldest_at": AT - HOUR + MOMENT}, Due.A_FULL_BATCH),
        (URGENT, Due.ANYTHING),
        ({"nearest_due_at": AT + 3 * DAY + MOMENT}, Due.A_FULL_BATCH),
        (PARTS, Due.PARTS),
        (PARTS | WAITED, Due.ANYTHING),
        (SPACED, Due.NOTHING),
        (SPACED | WAITED | PARTS, Due.NOTHING),
        (SPACED | OWING, Due.NOTHING),
        (SPACED | URGENT, Due.ANYTHING),
        (WAITED | {"last_job_at": AT - timedelta(minutes=10)}, Due.ANYTHING),
        (BUILDING | WAITED | PARTS, Due.NOTHING),
        (BUILDING | URGENT, Due.ANYTHING),
        (BUILDING | {"oldest_at": AT - 2 * HOUR}, Due.ANYTHING),
        (BUILDING | OWING, Due.REBASE),
        (OWING, Due.REBASE),
        (OWING | {"oldest_at": None}, Due.REBASE),
        (OWING | {"rebase_tried": True}, Due.A_FULL_BATCH),
        ({"debt_samples": 5, "debt_drift": 1.0}, Due.A_FULL_BATCH),
        ({"debt_drift": 1.5}, Due.REBASE),
        (OWING | {"sample_count": None}, Due.A_FULL_BATCH),
    ],
    ids=str,
)
def test_a_policy_says_what_is_due(fields: dict[str, Any], expected: Due) -> None:
    assert planner.what_is_due(replace(QUIET, **fields), POLICY, AT) is expected


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
    model_id = ready(policy=NOW)
    submit("a")
    with transaction() as session:
        assert planner.due(session) == [model_id]
        # Other sessions, while the first holds the lock.
        assert due() == []
        with transaction() as other:
            assert planner.plan_model(other, model_id) is None
    assert len(plan()) == 1
    assert plan() == []


def test_models_come_in_the_order_of_their_nearest_deadlines(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    models = {name: ready(name, [name, name + "'"], NOW) for name in "stuvwxy"}
    # The last one has nothing pending.
    asked = {"s": "none", "t": "none", "u": "none", "v": "none", "w": "ccpa", "x": "gdpr"}
    for samples, regulation in asked.items():
        client.post(REQUESTS, json={"sample_ids": [samples], "regulation": regulation})
    client.post(REQUESTS, json={"sample_ids": ["v'"], "regulation": "ccpa"})
    assert due() == [models[name] for name in "xwvstu"]


def test_jobs_of_a_model_keep_the_distance_that_its_policy_asks_for(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    spaced = NOW.batching.model_copy(update={"min_spacing": HOUR})
    ready(policy=NOW.model_copy(update={"batching": spaced}))
    ready("other", ["b"], NOW)
    submit("a")
    publish(hold(*plan()))
    submit("b")
    assert len(plan()) == 1  # of the other model
    assert plan() == []
    change(UnlearningJob, created_at=func.now() - HOUR)
    publish(hold(*plan()))
    submit("c")
    assert plan() == []  # the last job counts, not the first


def test_a_near_deadline_does_not_wait_for_the_distance_between_jobs(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    spaced = NOW.batching.model_copy(update={"min_spacing": HOUR})
    ready(policy=NOW.model_copy(update={"batching": spaced}))
    submit("a")
    publish(hold(*plan()))
    submit("b")
    change(Erasure, due_at=func.now() + 4 * DAY)
    assert plan() == []
    change(Erasure, due_at=func.now() + 2 * DAY)
    assert len(plan()) == 1


def test_parts_of_a_failed_batch_are_due_at_once_and_nobody_joins_them(
    client: TestClient,
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    digest: Callable[[str], bytes],
) -> None:
    batching = Batching(max_samples=4)
    ready(samples=list("abcde"), policy=NOW.model_copy(update={"batching": batching}))
    for sample in "abcd":
        client.post(REQUESTS, json={"sample_ids": [sample], "regulation": "none"})
    refuse(hold(*plan()))
    submit("e")  # with a deadline, which the others have not
    parts = []
    for _ in range(2):
        job = hold(*plan())
        parts.append(job.forget_digests)
        publish(job)
    assert parts == [{digest(sample) for sample in part} for part in ("ab", "cd")]
    assert due() == []  # the new one alone is neither a full batch nor has it waited


def test_a_backlog_is_counted_in_samples_and_over_all_its_erasures(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    one = ready("one", ["a", "b", "c", "d"], Policy(batching=Batching(max_samples=3)))
    two = ready("two", ["a", "b", "c", "d"], Policy(batching=Batching(max_samples=4)))
    submit("a")
    submit("b")
    assert due() == []
    submit("c")
    assert due() == [one]
    submit("d")
    assert set(due()) == {one, two}


def test_models_take_turns_by_chance_where_there_are_too_many_to_count(
    ready: Callable[..., UUID], submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {ready(name, [name], Policy(batching=Batching(max_samples=1))) for name in "abc"}
    submit(*"abc")
    assert set(due()) == full
    monkeypatch.setattr(planner, "COUNTED_AT_ONCE", 2)
    assert len(due()) == 2
    monkeypatch.setattr(planner, "COUNTED_AT_ONCE", 0)
    chance = random.Random(1)  # noqa: S311  the same turns in each run
    monkeypatch.setattr(planner, "SystemRandom", lambda: chance)
    found = [due() for _ in range(12)]
    assert {len(one) for one in found} == {1}
    assert {model_id for one in found for model_id in one} == full
