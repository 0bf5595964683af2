"""Passes of the planner: a transaction for each model, and an end in time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from structlog.testing import capture_logs

from app import queue
from app.crash_points import CrashPoint
from app.db import transaction
from app.deletions import planner
from app.tables import RegisteredModel, UnlearningJob
from tests.app.working import NOW

MODELS = ("a", "b", "c")


@pytest.fixture
def models(ready: Callable[..., UUID], submit: Callable[..., str]) -> list[UUID]:
    """Models with an erasure each that is due, in the order of their deadlines."""
    ids = [ready(name, [name], NOW) for name in MODELS]
    for name in MODELS:
        submit(name)
    return ids


@pytest.fixture
def asked(models: list[UUID], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What workers are asked for by this thread, from here on."""
    found: list[tuple[str, Any]] = []

    def nudge(task: str, id_: UUID | None = None) -> None:
        # The API asks for a plan, too, at some time after it answered.
        if threading.current_thread() is threading.main_thread():
            found.append((task, id_))

    monkeypatch.setattr(queue, "nudge", nudge)
    return found


@pytest.fixture
def pass_once(asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Plan as the scheduler does, for this long; returns the models that got jobs, and the log."""
    from workers import tasks  # makes the Celery application, which needs the settings

    def run(seconds: float = 60.0) -> tuple[list[UUID], list[Any]]:
        asked.clear()
        monkeypatch.setattr(tasks, "PASS_SECONDS", seconds)
        with capture_logs() as log:
            tasks.plan()
        jobs = [id_ for task, id_ in asked if task == queue.RUN_JOB]
        with transaction() as session:
            found = [session.get_one(UnlearningJob, id_).model_id for id_ in jobs]
        return found, [entry for entry in log if entry["event"] != "job.planned"]

    return run


def goes_on(asked: list[tuple[str, Any]]) -> bool:
    return (queue.PLAN, None) in asked


def break_policy(model_id: UUID) -> None:
    with transaction() as session:
        session.execute(
            update(RegisteredModel)
            .where(RegisteredModel.id == model_id)
            .values(policy={"ladder": ["of an older release"]})
        )


def test_a_pass_with_time_plans_all_that_is_due(
    models: list[UUID], asked: list[tuple[str, Any]], pass_once: Callable[..., Any]
) -> None:
    assert pass_once() == (models, [])
    assert not goes_on(asked)
    assert pass_once() == ([], [])


def test_a_pass_out_of_time_leaves_the_later_deadlines_to_the_next_at_once(
    models: list[UUID], asked: list[tuple[str, Any]], pass_once: Callable[..., Any]
) -> None:
    for position, model_id in enumerate(models):
        assert pass_once(seconds=0) == ([model_id], [])
        assert goes_on(asked) == (position < len(models) - 1)


def test_a_policy_that_cannot_be_read_stops_no_other_model(
    models: list[UUID], asked: list[tuple[str, Any]], pass_once: Callable[..., Any]
) -> None:
    break_policy(models[0])
    failed = {
        "event": "plan.failed",
        "model": str(models[0]),
        "error": "ValidationError",
        "log_level": "error",
    }
    # However little time there is, those that can be planned come first.
    assert [pass_once(seconds=0) for _ in MODELS] == [
        ([models[1]], []),
        ([models[2]], []),
        ([], [failed]),
    ]
    assert not goes_on(asked)


@pytest.mark.parametrize(
    ("error", "planned"),
    [
        (RuntimeError("not to be quoted"), 2),
        (IntegrityError("statement", {}, Exception()), 2),
        (OperationalError("statement", {}, Exception()), 0),
    ],
    ids=["its own", "its rows", "the database away"],
)
def test_a_model_that_fails_stops_the_others_only_where_they_would_fail_too(
    models: list[UUID],
    pass_once: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    planned: int,
) -> None:
    real = planner.plan_model

    def plan_model(session: Any, model_id: UUID) -> UUID | None:
        if model_id == models[0]:
            real(session, model_id)
            raise error
        return real(session, model_id)

    monkeypatch.setattr(planner, "plan_model", plan_model)
    found, log = pass_once()
    assert found == models[1 : planned + 1]
    assert [(entry["model"], entry["error"]) for entry in log] == [
        (str(models[0]), type(error).__name__)
    ]
    assert "quoted" not in str(log)
    with transaction() as session:
        # Of the one that failed nothing is left.
        assert set(session.scalars(select(UnlearningJob.model_id))) == set(found)


def test_a_database_that_is_away_ends_the_pass_before_it_begins(
    models: list[UUID], pass_once: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def due(session: Any) -> list[UUID]:
        raise DBAPIError("statement", {}, Exception())

    monkeypatch.setattr(planner, "due", due)
    found, log = pass_once()
    assert (found, [entry["event"] for entry in log]) == ([], ["plan.failed"])


def test_each_job_is_committed_alone_and_before_anybody_is_asked_to_run_it(
    models: list[UUID],
    asked: list[tuple[str, Any]],
    pass_once: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from workers import tasks

    seen: list[tuple[CrashPoint, int, int]] = []

    def reach(point: CrashPoint) -> None:
        with transaction() as session:
            committed = len(session.scalars(select(UnlearningJob.id)).all())
        seen.append((point, committed, len(asked)))

    monkeypatch.setattr(tasks, "reach", reach)
    pass_once()
    before_commit, before_nudge = CrashPoint.PLAN_BEFORE_COMMIT, CrashPoint.PLAN_BEFORE_NUDGE
    assert seen == [
        (before_commit, 0, 0),
        (before_nudge, 1, 0),
        (before_commit, 1, 1),
        (before_nudge, 2, 1),
        (before_commit, 2, 2),
        (before_nudge, 3, 2),
    ]


def test_planners_that_meet_make_one_job_for_each_model(models: list[UUID]) -> None:
    planners = 4
    together = threading.Barrier(planners, timeout=30)

    def work(_: int) -> list[UUID]:
        made = []
        for model_id in models * 2:
            together.wait()
            with transaction() as session:
                made.append(planner.plan_model(session, model_id))
        return [job_id for job_id in made if job_id is not None]

    with ThreadPoolExecutor(planners) as pool:
        made = [job_id for found in pool.map(work, range(planners)) for job_id in found]
    with transaction() as session:
        jobs = session.scalars(select(UnlearningJob)).all()
        assert sorted(job.model_id for job in jobs) == sorted(models)
        assert sorted(made) == sorted(job.id for job in jobs)
