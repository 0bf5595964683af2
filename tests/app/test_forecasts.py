"""What is expected of a request follows from what jobs took, the policy and the time left."""

import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from app.db import transaction
from app.deletions import forecasts
from app.deletions.planner import Due, Standing, what_is_due
from app.deletions.prospects import Prospect
from app.tables import DeletionRequest, Erasure, UnlearningJob
from lethe.policy import Batching, Policy, References, Review
from tests.app.office import REQUESTS, Office, at
from tests.app.watching import statements
from tests.app.working import NOW, fail, hold, plan, publish

MINUTE = timedelta(minutes=1)
# A page is answered within so much time, and levels are judged from its beginning.
SLACK = timedelta(seconds=30)
TOOK = [11.0, 13.0, 17.0, 19.0, 240.0]
HALF = timedelta(minutes=statistics.median(TOOK))
MOST = timedelta(minutes=statistics.quantiles(TOOK, n=10, method="inclusive")[-1])


@pytest.fixture
def office(client: TestClient) -> Office:
    return Office(client)


@pytest.fixture
def measured(office: Office, ready: Callable[..., UUID]) -> Callable[..., UUID]:
    """Make a model ready whose earlier jobs took these minutes."""

    def make(name: str = "digits", policy: Policy = NOW) -> UUID:
        model = ready(name, ["a", "b", *(f"{name}-{n}" for n in range(len(TOOK)))], policy)
        rows = []
        for n in range(len(TOOK)):
            office.ask(f"{name}-{n}")
            rows += [publish_of(job_id) for job_id in force(name)]
        with transaction() as session:
            for job_id, took in zip(rows, TOOK, strict=True):
                begun = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=took)
                times = {"created_at": begun, "finished_at": begun + timedelta(minutes=took)}
                session.execute(
                    update(UnlearningJob).where(UnlearningJob.id == job_id).values(**times)
                )
        return model

    def force(name: str) -> list[UUID]:
        with transaction() as session:
            session.execute(update(Erasure).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
        return plan()

    def publish_of(job_id: UUID) -> UUID:
        publish(hold(job_id))
        return job_id

    return make


def due(request: str, when: datetime) -> None:
    with transaction() as session:
        id_ = UUID(request)
        session.execute(
            update(DeletionRequest).where(DeletionRequest.id == id_).values(due_at=when)
        )


def retry_after(office: Office, request: str) -> int | None:
    header = office.http.get(f"{REQUESTS}/{request}").headers.get("Retry-After")
    return None if header is None else int(header)


def test_a_deadline_is_at_risk_when_jobs_that_take_as_long_as_earlier_ones_end_after_it(
    office: Office, measured: Callable[..., UUID]
) -> None:
    measured()
    request = office.ask("a")
    begun = datetime.now(UTC)
    for left, level in [
        (-MINUTE, "breached"),
        (HALF - SLACK, "high"),
        (HALF + SLACK, "medium"),
        (MOST - SLACK, "medium"),
        (MOST + 2 * SLACK, "low"),
    ]:
        due(request, begun + left)
        assert office.look(request)["breach_risk"]["level"] == level, left
    risk = office.look(request)["breach_risk"]
    assert begun + HALF <= at(risk["expected_at"]) <= begun + HALF + MINUTE + SLACK
    assert begun + MOST <= at(risk["late_at"]) <= begun + MOST + MINUTE + SLACK
    assert at(risk["expected_at"]).second == 0
    with transaction() as session:
        session.execute(update(DeletionRequest).values(due_at=None))
    assert office.look(request)["breach_risk"]["level"] == "low"


def test_a_request_is_as_late_as_the_slowest_of_its_models(
    office: Office, measured: Callable[..., UUID], ready: Callable[..., UUID]
) -> None:
    measured()
    wait = NOW.model_copy(update={"batching": Batching(max_wait=timedelta(hours=9))})
    measured("later", wait)
    request, unmeasured = office.ask("a"), office.ask("b")
    expected = at(office.look(request)["breach_risk"]["expected_at"])
    begun = at(office.look(request)["received_at"])
    assert begun + timedelta(hours=9) + HALF <= expected <= begun + timedelta(hours=10)
    ready("new", ["a", "b", "c"], NOW)
    request = office.ask("b")
    risk = office.look(request)["breach_risk"]
    assert (risk["level"], risk["expected_at"]) == ("unknown", None)
    assert "nothing is measured" in risk["detail"]
    due(request, datetime.now(UTC) - MINUTE)
    assert office.look(request)["breach_risk"]["level"] == "breached"
    assert office.look(unmeasured)["breach_risk"]["level"] == "low"


def test_what_is_in_a_job_ends_with_the_job(office: Office, measured: Callable[..., UUID]) -> None:
    measured()
    request = office.ask("a")
    (job_id,) = plan()
    now = datetime.now(UTC)
    for ago, likely, late in [
        (timedelta(0), HALF, MOST),
        (HALF + MINUTE, MOST - HALF - MINUTE, MOST - HALF - MINUTE),
        (MOST + MINUTE, HALF, MOST),  # as if it began once more
    ]:
        with transaction() as session:
            session.get_one(UnlearningJob, job_id).created_at = now - ago
        risk = office.look(request)["breach_risk"]
        for told, expected in ((risk["expected_at"], likely), (risk["late_at"], late)):
            assert now + expected <= at(told) <= now + expected + MINUTE + SLACK
    later = office.ask("b")  # waits for the job before its own begins
    risk = office.look(later)["breach_risk"]
    assert at(risk["expected_at"]) >= now + 2 * HALF


def test_when_to_ask_again_follows_from_the_plan(
    office: Office, measured: Callable[..., UUID], reread: Callable[[str, str], None]
) -> None:
    waits = {"soon": timedelta(0), "half": timedelta(minutes=30), "long": timedelta(hours=2)}
    for name, wait in waits.items():
        batching = Batching(max_wait=wait)
        measured(name, NOW.model_copy(update={"batching": batching}))
    reread("LETHE_PLAN_INTERVAL", "7")
    requests = {name: office.ask("a", model=name) for name in waits}
    assert retry_after(office, requests["soon"]) == 7
    assert 1_740 < (retry_after(office, requests["half"]) or 0) <= 1_800
    assert retry_after(office, requests["long"]) == 3_600
    (job_id,) = plan()
    assert retry_after(office, requests["soon"]) == 7  # queued: a worker may take it at once
    held = hold(job_id)
    assert abs((retry_after(office, requests["soon"]) or 0) - HALF.total_seconds()) < 60
    fail(held)
    assert retry_after(office, requests["soon"]) == 300
    assert "attention" in office.look(requests["soon"])["breach_risk"]["detail"]
    office.decide(requests["soon"], "cancel")
    assert retry_after(office, requests["soon"]) is None
    assert office.look(requests["soon"])["breach_risk"] is None


def test_what_waits_for_a_person_is_at_risk_a_few_days_before_its_deadline(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW.model_copy(update={"review": Review(approval="manual")}))
    request = office.ask("a")
    now = datetime.now(UTC)
    days = timedelta(days=1)
    for left, level in [(4 * days, "low"), (2 * days, "medium"), (days / 2, "high")]:
        due(request, now + left)
        risk = office.look(request)["breach_risk"]
        assert (risk["level"], risk["expected_at"]) == (level, None)
    assert "approval" in risk["detail"]
    assert retry_after(office, request) == 300


def test_what_waits_for_a_check_has_no_forecast_and_can_be_late_all_the_same(
    office: Office, register: Callable[..., UUID]
) -> None:
    register("digits", NOW)
    request = office.ask("a")
    risk = office.look(request)["breach_risk"]
    assert (risk["level"], risk["expected_at"]) == ("unknown", None)
    assert "checked" in risk["detail"]
    due(request, datetime.now(UTC) - MINUTE)
    assert office.look(request)["breach_risk"]["level"] == "breached"


def test_a_page_of_forecasts_takes_one_statement(
    office: Office, measured: Callable[..., UUID]
) -> None:
    for name in ("digits", "faces"):
        measured(name, NOW.model_copy(update={"batching": Batching()}))
    for _ in range(12):
        office.ask("a")
    with transaction() as session:
        requests = list(session.scalars(select(DeletionRequest)))
        of: dict[UUID, list[Erasure]] = {request.id: [] for request in requests}
        for erasure in session.scalars(select(Erasure)):
            of[erasure.request_id].append(erasure)
        with statements() as sent:
            found = forecasts.forecast(session, requests, of)
        assert len(sent) == 1
        assert len(found) == 12
        assert {each.expected_at is None for each in found.values()} == {False}
        with statements() as sent:
            done = [request for request in requests if request.finished_at is not None]
            assert done
            assert forecasts.forecast(session, done, of) == {}
        assert sent == []


DURATIONS = st.integers(0, 72).map(lambda hours: timedelta(hours=hours))
START = datetime(2026, 3, 1, tzinfo=UTC)
MOMENTS = st.integers(-100, 100).map(lambda hours: START + timedelta(hours=hours))


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    policy=st.builds(
        Policy,
        batching=st.builds(
            Batching, max_wait=DURATIONS, deadline_headroom=DURATIONS, min_spacing=DURATIONS
        ),
        references=st.builds(References, max_delay=DURATIONS),
    ),
    oldest=MOMENTS,
    nearest=st.none() | MOMENTS,
    last=st.none() | MOMENTS,
    building=st.booleans(),
    part=st.booleans(),
)
def test_a_job_is_foreseen_for_just_when_the_planner_makes_it(
    policy: Policy,
    oldest: datetime,
    nearest: datetime | None,
    last: datetime | None,
    building: bool,
    part: bool,
) -> None:
    stored = policy.model_dump(mode="json")
    erasure = Erasure(created_at=oldest, due_at=nearest, cohort_id=uuid4() if part else None)
    prospect = Prospect(stored, None, False, last, oldest, nearest, building, None, None)
    found = forecasts.starts_at(erasure, prospect, oldest)
    standing = Standing(uuid4(), stored, 100, 0, 0.0, False, building, last, oldest, nearest, part)
    begins = (Due.ANYTHING, Due.PARTS)
    assert what_is_due(standing, policy, found) in begins
    if found > oldest:
        assert what_is_due(standing, policy, found - timedelta(microseconds=1)) not in begins
