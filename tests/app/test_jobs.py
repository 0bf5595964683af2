"""Leases and publication, against a real database and without a worker."""

import threading
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update

from app.db import transaction
from app.deletions import planner
from app.errors import LeaseLost
from app.jobs import leases, outcome, publication
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from app.jobs.publication import NewVersion
from app.statuses import RungOutcome
from app.tables import Erasure, ManifestEntry, ModelVersion, UnlearningJob
from lethe.policy import Batching, Debt, Policy
from tests.patience import DAY, tries

REQUESTS = "/v1/deletion-requests"
LEASE = timedelta(seconds=60)
NOW = Policy(batching=Batching(max_wait=timedelta(0), max_splits=0), debt=Debt(max_share=1.0))
RUNG = Attempted(
    0, "iau", "approximate", RungOutcome.PASSED, {"outcome": "passed"}, {"seconds": 1.5}, 1.5
)


def plan() -> list[UUID]:
    with transaction() as session:
        return planner.plan(session)


def claim(job_id: UUID, lease: timedelta = LEASE) -> Job | None:
    with transaction() as session:
        return leases.claim(session, job_id, "test", lease)


def publish(job: Job, digest: str = "sha256:" + "1" * 64, guarantee: str = "approximate") -> None:
    shown = (guarantee, "passed", 0.25)
    with transaction() as session:
        publication.publish(session, job, NewVersion(digest, 1, "iau", *shown), [RUNG])


@pytest.fixture
def claimed(ready: Callable[..., UUID], submit: Callable[..., str]) -> Job:
    """A job that this test holds: `a` and `b` are to be forgotten, `c` and `d` stay."""
    ready(samples=["a", "b", "c", "d"], policy=NOW)
    submit("a")
    submit("b", "nobody")
    job = claim(plan()[0])
    assert job is not None
    return job


def test_a_job_is_claimed_once_however_many_ask(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    submit("a")
    job_id = plan()[0]
    claims: list[Job | None] = []
    threads = [threading.Thread(target=lambda: claims.append(claim(job_id))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([c for c in claims if c is not None]) == 1
    assert len(claims) == 6


def test_a_claimed_job_knows_what_to_forget_and_nothing_of_the_ids(
    claimed: Job, digest: Callable[[str], bytes]
) -> None:
    assert claimed.forget_digests == {digest("a"), digest("b")}
    assert claimed.forgotten_digests == frozenset()
    assert (claimed.fence, claimed.attempt) == (1, 1)


def test_publication_does_everything_at_once(client: TestClient, claimed: Job) -> None:
    publish(claimed)
    model = client.get("/v1/models/digits").json()
    assert model["current"] == {
        "number": 2,
        "digest": "sha256:" + "1" * 64,
        "guarantee": "approximate",
        "verdict": "passed",
    }
    versions = client.get("/v1/models/digits/versions").json()["items"]
    assert [(v["number"], v["status"]) for v in versions] == [(1, "withdrawn"), (2, "current")]
    assert versions[1]["parent_digest"] == versions[0]["digest"]
    for request in client.get(REQUESTS).json()["items"]:
        assert request["status"] == "completed"
        assert request["erasures"][0]["version"]["number"] == 2
    with transaction() as session:
        gone = select(func.count()).where(ManifestEntry.forgotten_by_job_id == claimed.id)
        assert session.scalar(gone) == 2


@pytest.mark.parametrize(
    "table",
    ["model_versions", "registered_models", "manifest_entries", "erasures", "audit_entries"],
)
def test_publication_does_nothing_if_any_part_of_it_fails(
    client: TestClient, claimed: Job, table: str
) -> None:
    before = client.get("/v1/models/digits").json(), client.get(REQUESTS).json()
    with transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'broken'; END $$"
            )
        )
        session.execute(
            text(
                f"CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table} "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    with pytest.raises(Exception, match="broken"):
        publish(claimed)
    assert (client.get("/v1/models/digits").json(), client.get(REQUESTS).json()) == before
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == 1
        assert session.scalar(select(UnlearningJob.status)) == "running"


def test_a_stolen_lease_publishes_nothing(client: TestClient, claimed: Job) -> None:
    with transaction() as session:
        session.execute(
            update(UnlearningJob).values(lease_expires_at=text("now() - interval '1s'"))
        )
    with transaction() as session:
        outcome.expire(session, tries(5), DAY)
    thief = claim(claimed.id)
    assert thief is not None
    assert thief.fence == claimed.fence + 1
    for act in (
        lambda session: leases.renew(session, claimed, LEASE, None),
        lambda session: outcome.record(session, claimed, RUNG),
        lambda session: outcome.refuse(session, claimed, [RUNG]),
        lambda session: outcome.fail(session, claimed, "x"),
        lambda session: outcome.give_back(session, claimed, "x", tries(5)),
    ):
        with pytest.raises(LeaseLost), transaction() as session:
            act(session)
    with pytest.raises(LeaseLost):
        publish(claimed, "sha256:" + "2" * 64)
    publish(thief)
    assert client.get("/v1/models/digits").json()["current"]["digest"] == "sha256:" + "1" * 64


def test_a_job_is_published_once(client: TestClient, claimed: Job) -> None:
    publish(claimed)
    with pytest.raises(LeaseLost):
        publish(claimed)
    assert len(client.get("/v1/models/digits/versions").json()["items"]) == 2


def test_versions_come_in_pages_from_the_oldest_on(client: TestClient, claimed: Job) -> None:
    url = "/v1/models/digits/versions"
    alone = client.get(url, params={"limit": 1}).json()
    assert ([each["number"] for each in alone["items"]], alone["next_after"]) == ([1], None)
    publish(claimed)
    first = client.get(url, params={"limit": 1}).json()
    assert ([each["number"] for each in first["items"]], first["next_after"]) == ([1], 1)
    second = client.get(url, params={"limit": 1, "after": 1}).json()
    assert ([each["number"] for each in second["items"]], second["next_after"]) == ([2], None)
    assert client.get(url, params={"after": -1}).status_code == 422


def test_a_lease_that_is_renewed_does_not_run_out(claimed: Job) -> None:
    with transaction() as session:
        session.execute(
            update(UnlearningJob).values(lease_expires_at=text("now() - interval '1s'"))
        )
        leases.renew(session, claimed, LEASE, {"phase": "iau", "fraction": 0.5})
    with transaction() as session:
        outcome.expire(session, tries(5), DAY)
        job = session.get_one(UnlearningJob, claimed.id)
        assert (job.status, job.progress) == ("running", {"phase": "iau", "fraction": 0.5})


def test_a_job_that_dies_too_often_needs_attention(client: TestClient, claimed: Job) -> None:
    for attempt in range(2, 4):
        with transaction() as session:
            session.execute(
                update(UnlearningJob).values(lease_expires_at=text("now() - interval '1s'"))
            )
        with transaction() as session:
            outcome.expire(session, tries(2), DAY)
        again = claim(claimed.id)
        assert (again is not None) is (attempt == 2)
    job = client.get(f"/v1/jobs/{claimed.id}").json()
    assert job["status"] == "failed"
    assert "lease ran out" in job["error"]
    statuses = {r["status"] for r in client.get(REQUESTS).json()["items"]}
    assert statuses == {"needs_attention"}


def test_a_passing_error_queues_the_job_again(claimed: Job) -> None:
    with transaction() as session:
        outcome.give_back(session, claimed, "OSError in x.py:1", tries(5))
    again = claim(claimed.id)
    assert again is not None
    assert (again.attempt, again.seed) == (2, claimed.seed)


def test_a_refused_job_leaves_the_old_version_current(client: TestClient, claimed: Job) -> None:
    with transaction() as session:
        outcome.refuse(session, claimed, [RUNG])
    assert client.get("/v1/models/digits/current").json()["number"] == 1
    statuses = {r["status"] for r in client.get(REQUESTS).json()["items"]}
    assert statuses == {"needs_attention"}


def test_the_next_job_retains_nothing_that_was_forgotten(
    client: TestClient, claimed: Job, submit: Callable[..., str], digest: Callable[[str], bytes]
) -> None:
    publish(claimed)
    submit("a", "c")
    job = claim(plan()[0])
    assert job is not None
    assert job.forget_digests == {digest("c")}
    assert job.forgotten_digests == {digest("a"), digest("b")}
    assert job.parent_digest == "sha256:" + "1" * 64


def test_what_was_forgotten_before_is_completed_at_once(
    client: TestClient, claimed: Job, submit: Callable[..., str]
) -> None:
    publish(claimed)
    body = client.get(submit("a", "b")).json()
    assert body["status"] == "completed"
    assert body["erasures"][0]["version"]["number"] == 2
    assert plan() == []


def test_what_a_running_job_forgets_needs_no_second_job(
    client: TestClient, claimed: Job, submit: Callable[..., str]
) -> None:
    location = submit("b")  # while the job that forgets it runs
    publish(claimed)
    assert plan() == []
    assert client.get(location).json()["status"] == "completed"
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(UnlearningJob)) == 1
        assert session.scalars(select(Erasure.status).distinct()).all() == ["completed"]


def test_a_request_to_two_models_is_complete_when_both_are(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready("one", ["a"], NOW)
    ready("two", ["a"], NOW)
    location = submit("a")
    for index, job_id in enumerate(plan()):
        assert client.get(location).json()["status"] == "in_progress"
        job = claim(job_id)
        assert job is not None
        publish(job, f"sha256:{index}" + "3" * 63)
    assert client.get(location).json()["status"] == "completed"
