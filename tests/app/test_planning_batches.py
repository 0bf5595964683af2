"""What making a batch leaves behind: statuses, audit entries and numbers."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.audit import ledger
from app.db import transaction
from app.tables import AuditEntry, AuditPending, Erasure, UnlearningJob
from lethe.policy import Policy
from tests.app.working import NOW, fail, hold, plan, publish


def status(client: TestClient, where: str) -> str:
    return str(client.get(where).json()["status"])


def told(event: str) -> list[tuple[str, dict[str, Any]]]:
    """The subjects and facts of the entries of one kind, in the order of the log."""
    with transaction() as session:
        rows = session.execute(
            select(AuditEntry.subject, AuditEntry.payload)
            .join(AuditPending, AuditPending.entry_id == AuditEntry.id)
            .where(AuditEntry.event == event)
            .order_by(AuditEntry.id)
        ).all()
    return [(str(subject), json.loads(payload)["facts"]) for subject, payload in rows]


def test_each_move_of_a_batch_has_one_entry_in_the_log(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready("one", ["a", "b", "c"], NOW)
    ready("two", ["c"], NOW)
    requests = [submit(sample).rpartition("/")[2] for sample in "abc"]
    jobs = plan()
    with transaction() as session:
        erasures = session.execute(select(Erasure.id, Erasure.job_id)).all()
    assert sorted(told("erasure.scheduled"), key=str) == sorted(
        ((str(id_), {"job": str(job_id)}) for id_, job_id in erasures), key=str
    )
    # The one for both models is in progress once.
    assert sorted(told("deletion_request.in_progress"), key=str) == sorted(
        ((id_, {}) for id_ in requests), key=str
    )
    assert sorted(subject for subject, _ in told("job.queued")) == sorted(map(str, jobs))


def test_a_sample_that_several_requests_ask_for_is_counted_once(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=["a", "b", "c"], policy=NOW)
    submit("a")
    submit("a", "b", "unknown")
    (job_id,) = plan()
    with transaction() as session:
        job = session.get_one(UnlearningJob, job_id)
        assert (job.erasure_count, job.sample_count) == (2, 2)


def test_a_request_needs_attention_until_its_last_erasure_does_not(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready("now", ["a", "b"], NOW)
    ready("later", ["a", "b"], Policy())
    both = submit("a")
    (job_id,) = plan()
    fail(hold(job_id))
    assert status(client, both) == "needs_attention"
    other = submit("b")
    with transaction() as session:
        session.execute(update(Erasure).values(created_at=func.now() - timedelta(hours=2)))
    assert len(plan()) == 2
    assert (status(client, both), status(client, other)) == ("needs_attention", "in_progress")
    assert client.post(f"{both}/retry").status_code == 202
    assert status(client, both) == "in_progress"


def test_a_batch_that_was_forgotten_meanwhile_is_complete_without_a_job(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=["a", "b", "c"], policy=NOW)
    submit("a", "b")
    (job_id,) = plan()
    inside, partly = submit("b"), submit("b", "c")
    publish(hold(job_id))
    (second,) = plan()
    assert (status(client, inside), status(client, partly)) == ("completed", "in_progress")
    with transaction() as session:
        job = session.get_one(UnlearningJob, second)
        assert (job.erasure_count, job.sample_count) == (1, 1)


@pytest.mark.parametrize("count", [1, 3])
def test_the_log_holds_what_it_is_told_word_for_word_and_in_order(
    environment: dict[str, str], count: int
) -> None:
    facts = {"text": 'quo"te, back\\slash, {brace}, new\nline, \x00, %s, é, 🙂', "number": 1.5}
    entries = [ledger.Entry("job.queued", uuid4(), {**facts, "n": n}) for n in range(count)]
    with transaction() as session:
        ledger.append(session, entries)
        ledger.append(session, [])
    assert told("job.queued") == [(str(e.subject), dict(e.facts)) for e in entries]
