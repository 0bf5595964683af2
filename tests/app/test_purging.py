"""A withdrawn version goes for good when its time is over, with all that was computed from it."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app import queue
from app.db import transaction
from app.derived import ledgers
from app.retention import purging
from app.tables import JobRecord, ModelVersion, UnlearningJob
from lethe.policy import Policy, Retention
from tests.app.gradient_ledgers import (
    POLICY,
    announce,
    begin,
    claim,
    compute,
    found,
    remove,
    row,
    void,
    void_files,
)
from tests.app.purges import MINUTE, WEEK, age, due, entries, is_there, purge_due, status, withdraw
from tests.app.scrubbing import check, look, publish, store


@pytest.fixture
def served(register: Callable[..., UUID]) -> ModelVersion:
    """The first version of a model called digits."""
    return check(register("digits", POLICY))


def of(register: Callable[..., UUID], name: str, content: bytes) -> ModelVersion:
    """The second version of another model, with these weights."""
    return publish(check(register(name, POLICY)), content)


def job_from(parent: ModelVersion, child: ModelVersion, losses: bytes | None) -> UUID:
    """Let the child have been made by a job from the parent, on record."""
    with transaction() as session:
        job = UnlearningJob(
            model_id=parent.model_id,
            parent_version_id=parent.id,
            policy={},
            seed=1,
            sample_count=1,
            status="published",
        )
        session.add(job)
        session.flush()
        session.get_one(ModelVersion, child.id).job_id = job.id
        session.add(JobRecord(job_id=job.id, inputs={"device": "cpu"}, losses=losses))
        return job.id


def record(job_id: UUID) -> JobRecord:
    with transaction() as session:
        return session.get_one(JobRecord, job_id)


def test_weights_stay_for_the_grace_period_and_are_gone_after_it(
    client: TestClient, served: ModelVersion
) -> None:
    second = publish(served, b"weights of version 2")
    age(served, WEEK - MINUTE)
    assert (due(), purge_due(), status(served), is_there(served)) == ([], 0, "withdrawn", True)
    answer = client.get("/v1/models/digits/versions/1").json()
    assert (answer["purge"]["waits_for"], answer["purged_at"]) == ([], None)
    age(served, WEEK + MINUTE)
    assert due() == [served.id]
    assert (purge_due(), status(served), is_there(served)) == (1, "purged", False)
    assert (due(), purge_due()) == ([], 0)
    assert (status(second), is_there(second)) == ("current", True)
    [entry] = entries("version.purged")
    assert entry["subject"] == str(served.id)
    assert entry["facts"] == {
        "model": str(served.model_id),
        "number": 1,
        "digest": served.digest,
        "ledger_digest": None,
        "losses_of_job": None,
    }


def test_a_version_says_when_it_goes_and_that_it_is_gone(
    client: TestClient, served: ModelVersion
) -> None:
    assert client.get("/v1/models/digits/current").json()["purge"] is None
    publish(served, b"weights of version 2")
    age(served, WEEK + MINUTE)
    first, second = client.get("/v1/models/digits/versions").json()["items"]
    assert (first["status"], second["purge"], second["withdrawn_at"]) == ("withdrawn", None, None)
    assert first["withdrawn_at"] < first["purge"]["due_at"]
    gone = client.get("/v1/models/digits/versions/1/weights")
    assert (gone.status_code, "purged" in gone.json()["detail"]) == (410, False)
    purge_due()
    first = client.get("/v1/models/digits/versions").json()["items"][0]
    assert (first["status"], first["purge"]) == ("purged", None)
    assert first["purged_at"] is not None
    gone = client.get("/v1/models/digits/versions/1/weights")
    assert (gone.status_code, "purged" in gone.json()["detail"]) == (410, True)
    assert client.get("/v1/models/digits/current/weights").content == b"weights of version 2"


def test_each_model_keeps_its_versions_for_as_long_as_its_own_policy_wants(
    register: Callable[..., UUID],
) -> None:
    versions = []
    for name, grace in (("at-once", timedelta(0)), ("year", timedelta(days=364))):
        policy = Policy(retention=Retention(purge_after=grace))
        first = check(register(name, policy))
        publish(first, name.encode() + b" 2")
        age(first, timedelta(days=363))
        versions.append(first)
    assert due() == [versions[0].id]
    assert purge_due() == 1
    assert [status(each) for each in versions] == ["purged", "withdrawn"]
    age(versions[1], timedelta(days=364))
    assert due() == [versions[1].id]


def test_a_ledger_stays_for_audits_until_its_version_goes_and_is_never_used_again(
    served: ModelVersion,
) -> None:
    computed = compute(served.model_id, digest := store().put([b"a sum"]).digest)
    publish(served, b"weights of version 2")
    void(computed)
    assert found(computed) is None
    age(served, WEEK - MINUTE)
    assert purge_due() == 0
    with transaction() as session:
        assert ledgers.find(session, served.id) is None
    assert store().find(digest) is not None
    assert void_files() == []  # or the sweep would ask for its removal for ever
    assert remove(computed.claim.id) == []
    assert look(remove_leftovers=True).leftovers == ()
    age(served, WEEK + MINUTE)
    assert purge_due() == 1
    assert store().find(digest) is None
    assert row(computed.claim.id).digest is None
    assert entries("version.purged")[0]["facts"]["ledger_digest"] == digest
    assert [each["facts"]["digest"] for each in entries("ledger.removed")] == [digest]


def test_numbers_about_single_samples_go_with_the_weights_that_they_were_used_on(
    served: ModelVersion,
) -> None:
    second = publish(served, b"weights of version 2")
    third = publish(second, b"weights of version 3")
    first_job = job_from(served, second, b"losses of the first")
    second_job = job_from(second, third, b"losses of the second")
    age(served, WEEK + MINUTE)
    age(second, WEEK - MINUTE)
    assert purge_due() == 1
    assert (record(first_job).losses, record(first_job).inputs) == (None, {"device": "cpu"})
    assert record(second_job).losses == b"losses of the second"
    assert entries("version.purged")[0]["facts"]["losses_of_job"] == str(first_job)


def test_bytes_that_another_model_serves_stay_and_the_answer_says_so(
    client: TestClient, served: ModelVersion, register: Callable[..., UUID]
) -> None:
    publish(served, b"weights of version 2")
    other = of(register, "other", b"digits")
    assert other.digest == served.digest
    age(served, WEEK + MINUTE)
    assert (due(), purge_due(), status(served), is_there(served)) == ([], 0, "withdrawn", True)
    purge = client.get("/v1/models/digits/versions/1").json()["purge"]
    assert purge["waits_for"] == ["other, version 2"]
    with transaction() as session:  # it came to be needed after somebody looked at what is due
        assert purging.purge(session, served.id, pytest.fail) == []
    withdraw(other, WEEK - MINUTE)
    assert (due(), purge_due()) == ([], 0)
    age(other, WEEK + MINUTE)
    assert set(due()) == {served.id, other.id}
    assert purge_due() == 2  # neither waits for the other
    assert (status(served), status(other), is_there(served)) == ("purged", "purged", False)
    assert {each["subject"] for each in entries("version.purged")} == {
        str(served.id),
        str(other.id),
    }


def test_bytes_that_are_being_checked_stay(
    client: TestClient, served: ModelVersion, register: Callable[..., UUID]
) -> None:
    answer = client.post(
        "/v1/models", json={"name": "twin", "recipe": "digits", "checkpoint": served.digest}
    )
    assert answer.status_code == 202
    publish(served, b"weights of version 2")
    age(served, WEEK + MINUTE)
    assert purge_due() == 0
    purge = client.get("/v1/models/digits/versions/1").json()["purge"]
    assert purge["waits_for"] == ["twin, being checked"]
    assert is_there(served)


@pytest.mark.parametrize("state", ["announced", "ready", "kept"])
def test_bytes_that_a_ledger_needs_stay(
    client: TestClient, served: ModelVersion, register: Callable[..., UUID], state: str
) -> None:
    other = check(register("other", POLICY))
    computed = claim(begin(other.model_id))
    announce(computed, served.digest)
    if state != "announced":
        with transaction() as session:
            ledgers.finish(session, computed, served.digest, 1, "r", "d", 1.0)
    if state == "kept":
        withdraw(other, WEEK - MINUTE)
        void(computed)
    publish(served, b"weights of version 2")
    age(served, WEEK + MINUTE)
    assert purge_due() == 0
    purge = client.get("/v1/models/digits/versions/1").json()["purge"]
    assert purge["waits_for"] == ["other, gradient ledger of version 1"]
    if state != "kept":
        void(computed)  # of a version that is current, or that was never ready: not kept
    else:
        age(other, WEEK + MINUTE)
    assert purge_due() == (2 if state == "kept" else 1)
    assert not is_there(served)


def test_what_was_signed_or_moved_goes_with_the_file_and_nothing_else(
    served: ModelVersion, tmp_path: Path
) -> None:
    path = store().path_of(served.digest)
    moved = path.rename(tmp_path / "on another disk")
    path.symlink_to(moved)
    signature = path.with_name(path.name + ".sig")
    neighbour = path.with_name(path.name[:-1] + "x")
    for each in (signature, neighbour):
        each.write_bytes(b"beside")
    publish(served, b"weights of version 2")
    age(served, WEEK + MINUTE)
    assert purge_due() == 1
    assert [each for each in (path, moved, signature) if os.path.lexists(each)] == []
    assert neighbour.exists()


def test_the_sweep_asks_a_worker_for_what_is_due_and_for_nothing_else(
    served: ModelVersion, register: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    asked: list[str] = []
    monkeypatch.setattr(queue, "nudge", lambda task, id_=None: asked.append(task))
    publish(served, b"weights of version 2")
    age(served, WEEK - MINUTE)
    tasks.sweep()
    assert queue.PURGE not in asked
    age(served, WEEK + MINUTE)
    tasks.sweep()
    assert asked.count(queue.PURGE) == 1
    tasks.purge()
    assert status(served) == "purged"
    asked.clear()
    other = of(register, "other", b"weights of version 2")
    withdraw(other, WEEK + MINUTE)
    tasks.sweep()  # version 2 of the first model serves the same bytes
    assert queue.PURGE not in asked


def test_a_version_that_is_current_or_unknown_is_not_purged(served: ModelVersion) -> None:
    with transaction() as session:
        assert purging.purge(session, uuid4(), pytest.fail) == []
        assert purging.purge(session, served.id, pytest.fail) == []
    assert status(served) == "current"
