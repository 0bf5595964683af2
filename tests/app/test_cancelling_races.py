"""Withdrawals that race with planners, workers and one another: one outcome, and it is answered."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app.db import transaction
from app.deletions import cancelling, planner
from app.deletions.cancelling import Cancellation
from app.errors import LeaseLost, TooLate
from app.jobs import publication
from app.jobs.publication import NewVersion
from app.tables import AuditEntry, DeletionRequest, Erasure, ManifestEntry, UnlearningJob
from tests.app.working import NOW, PASSED, claim, hold, plan, publish, unfinished

NEW = NewVersion("sha256:" + "1" * 64, 1, "iau", "approximate", "passed", drift=0.25)
ROUNDS = 3
PATIENCE_SECONDS = 60


def id_of(location: str) -> UUID:
    return UUID(location.rsplit("/", 1)[1])


def cancel(location: str) -> Cancellation | None:
    """Withdraw a request; None says that it was too late."""
    try:
        with transaction() as session:
            return cancelling.cancel(session, id_of(location), "client")
    except TooLate:
        return None


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call all, begun together; return what each returned, and raise what any raised."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def call(index: int) -> None:
        barrier.wait(PATIENCE_SECONDS)
        try:
            results[index] = calls[index]()
        except Exception as error:  # noqa: BLE001  # raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    for error in errors:
        raise error
    return results


@pytest.fixture
def fate(digest: Callable[[str], bytes]) -> Callable[[str, str], tuple[str, bool]]:
    """Return the status of a request's only erasure, and whether its sample is forgotten."""

    def look(location: str, sample: str) -> tuple[str, bool]:
        with transaction() as session:
            of_request = Erasure.request_id == id_of(location)
            status = session.scalars(select(Erasure.status).where(of_request)).one()
            entry = select(ManifestEntry.forgotten_by_job_id).where(
                ManifestEntry.sample_digest == digest(sample)
            )
            return status, session.scalars(entry).one() is not None

    return look


def plan_each() -> None:
    """Plan as the scheduler does, each model in a transaction of its own."""
    with transaction() as session:
        models = planner.due(session)
    for model_id in models:
        with transaction() as session:
            planner.plan_model(session, model_id)


def try_to_publish(held: Any) -> bool:
    try:
        publish(held)
    except LeaseLost:
        return False
    return True


@contextmanager
def meanwhile(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Begin a call that waits for what the block has locked; at the end, take what it returned."""
    returned: list[Any] = []
    waiting = select(func.count()).select_from(text("pg_locks")).where(text("NOT granted"))
    thread = threading.Thread(target=lambda: returned.append(call()))
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with transaction() as session:
            if session.scalar(waiting):
                break
        assert time.monotonic() < deadline, "it waits for nothing"
    yield returned
    thread.join(PATIENCE_SECONDS)
    assert returned, "it has not returned"


def test_a_withdrawal_that_waited_for_a_publication_comes_too_late(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="ab", policy=NOW)
    where = submit("a")
    held = hold(plan()[0])
    with ExitStack() as waiting, transaction() as session:
        publication.publish(session, held, NEW, [PASSED])
        answers = waiting.enter_context(meanwhile(partial(cancel, where)))
    assert answers == [None]


def test_a_publication_that_waited_for_a_withdrawal_is_void(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="ab", policy=NOW)
    where = submit("a")
    submit("b")
    held = hold(plan()[0])
    with ExitStack() as waiting, transaction() as session:
        cancelling.cancel(session, id_of(where), "client")
        published = waiting.enter_context(meanwhile(partial(try_to_publish, held)))
    assert published == [False]


def test_a_withdrawal_that_waited_for_a_planner_takes_its_part_out_of_the_new_job(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples="ab", policy=NOW)
    where = submit("a")
    submit("b")
    with ExitStack() as waiting, transaction() as session:
        (job_id,) = planner.plan(session)
        answers = waiting.enter_context(meanwhile(partial(cancel, where)))
    assert len(answers[0].cancelled) == 1
    assert len(hold(job_id).forget_digests) == 1
    with transaction() as session:
        assert session.get_one(UnlearningJob, job_id).erasure_count == 1


def test_of_a_publication_and_withdrawals_each_is_answered_as_it_ends(
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    fate: Callable[[str, str], tuple[str, bool]],
) -> None:
    samples = [f"s{index}" for index in range(ROUNDS * 4)]
    ready(samples=samples, policy=NOW)
    for turn in range(ROUNDS):
        mine = samples[turn * 4 : turn * 4 + 4]
        where = {sample: submit(sample) for sample in mine}
        (job_id,) = plan()
        held = hold(job_id)
        published, *answers = at_once(
            [
                partial(try_to_publish, held),
                *(partial(cancel, where[sample]) for sample in mine[:3]),
            ]
        )
        # Whoever came first decided for all: each takes the job's row.
        assert [answer is None for answer in answers] == [published] * 3
        for sample, answer in zip(mine, answers, strict=False):
            expected = ("completed", True) if answer is None else ("cancelled", False)
            assert fate(where[sample], sample) == expected
        if not published:
            publish(hold(job_id))
        assert fate(where[mine[3]], mine[3]) == ("completed", True)


def test_what_is_withdrawn_while_planners_plan_is_in_no_job(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    samples = [f"s{index}" for index in range(ROUNDS * 3)]
    for name in ("one", "two", "three"):
        ready(name, samples, NOW)
    for turn in range(ROUNDS):
        wheres = [submit(sample) for sample in samples[turn * 3 : turn * 3 + 3]]
        calls = [partial(cancel, where) for where in wheres[:2]]
        answers = at_once([plan_each, *calls, plan_each])[1:3]
        assert all(answer is not None and len(answer.cancelled) == 3 for answer in answers)
        plan_each()
        jobs = unfinished()
        assert len(jobs) == 3
        with transaction() as session:
            counts = session.scalars(select(UnlearningJob.erasure_count).where(_in(jobs))).all()
            requests = session.scalars(
                select(Erasure.request_id).where(Erasure.job_id.in_(jobs)).distinct()
            ).all()
        assert list(counts) == [1, 1, 1]
        assert requests == [id_of(wheres[2])]
        for job_id in jobs:
            publish(hold(job_id))


def _in(jobs: Sequence[UUID]) -> Any:
    return UnlearningJob.id.in_(jobs)


def test_of_a_claim_and_a_withdrawal_the_worker_never_forgets_what_was_withdrawn(
    ready: Callable[..., UUID],
    submit: Callable[..., str],
    fate: Callable[[str, str], tuple[str, bool]],
) -> None:
    samples = [f"s{index}" for index in range(ROUNDS * 2)]
    ready(samples=samples, policy=NOW)
    for turn in range(ROUNDS):
        leaving, staying = samples[turn * 2 : turn * 2 + 2]
        where = {sample: submit(sample) for sample in (leaving, staying)}
        (job_id,) = plan()
        held, answer = at_once([partial(claim, job_id), partial(cancel, where[leaving])])
        assert answer is not None
        assert held is not None
        assert try_to_publish(held) is (len(held.forget_digests) == 1)
        for again in unfinished():
            publish(hold(again))
        assert fate(where[leaving], leaving) == ("cancelled", False)
        assert fate(where[staying], staying) == ("completed", True)


def test_a_request_that_many_withdraw_at_once_is_withdrawn_once(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    for name in ("one", "two"):
        ready(name, "ab", NOW)
    where = submit("a")
    plan()
    answers = at_once([partial(cancel, where)] * 6)
    assert all(answer is not None and len(answer.cancelled) == 2 for answer in answers)
    with transaction() as session:
        events = dict(
            session.execute(
                select(AuditEntry.event, func.count())
                .where(AuditEntry.event.like("%.cancelled"))
                .group_by(AuditEntry.event)
            ).all()
        )
        assert session.scalars(select(DeletionRequest.status)).all() == ["cancelled"]
    assert events == {"erasure.cancelled": 2, "job.cancelled": 2, "deletion_request.cancelled": 1}
