"""Clients, operators, planners and workers that do whatever they may, in any order."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from app.audit import service as audit
from app.db import transaction
from app.deletions import intake, retrying, submissions
from app.deletions.clocks import Regulation
from app.errors import IdempotencyKeyReused, LeaseLost
from app.jobs.leases import Job
from app.tables import Cohort, Erasure, UnlearningJob
from lethe.policy import Batching, Debt, Policy, Review
from tests.app import accounts, working
from tests.app.deciding import DECISIONS, ENDS
from tests.app.promises import Batch, Model, World

SAMPLES = "abcdefgh"
MOST_MODELS = 4
KEYS = ["k", "l"]
ATTEMPTS = 2
# A request names up to three samples.
HELD_ABOVE = 2
# Batches that any run leaves at its end, and some more.
MOST_JOBS = 60

POLICY = Policy(
    batching=Batching(max_wait=timedelta(0), max_samples=6, max_splits=4),
    debt=Debt(max_share=0.6, max_drift=1e6),
    references=working.NONE,
    review=Review(hold_above=HELD_ABOVE),
)

# What a worker does with its claim, and what follows for the batch.
WRITES: Mapping[str, tuple[Callable[[Job], None], Callable[[World, Batch], None]]] = {
    "renew": (working.renew, lambda _, __: None),
    "record": (working.record, lambda _, __: None),
    "publish": (
        lambda job: working.publish(job, "exact" if job.rebase else "approximate"),
        lambda world, batch: world.publish(batch, exact=batch.rebase),
    ),
    "retrain": (
        lambda job: working.publish(job, "exact"),
        lambda world, batch: world.publish(batch, exact=True),
    ),
    "refuse": (
        working.refuse,
        lambda world, batch: world.leave(batch, "refused", split=True),
    ),
    "see nothing": (
        lambda job: working.refuse(job, working.INCONCLUSIVE, working.NOT_RUN),
        lambda world, batch: world.leave(batch, "refused", split=False),
    ),
    "fail": (working.fail, World.fail),
    "give back": (
        lambda job: working.give_back(job, ATTEMPTS),
        lambda world, batch: world.count_failure(batch, ATTEMPTS),
    ),
    "give back smaller": (working.give_back_smaller, World.queue),
    "release": (working.release, World.queue),
}


CLIENTS = ["submit"] * 6 + ["cancel"] * 4 + ["retry", "retry_all"] * 2
DECIDERS = ["approve", "reopen"] * 3 + ["refuse", "pause", "resume"] * 2
OPERATORS = ["plan"] * 8 + ["fall_silent", "place", "register", "accept", "accept", "reject"]
WORKERS = ["claim"] * 12 + ["publish"] * 4 + list(WRITES)

samples_of_some = st.sets(st.sampled_from(SAMPLES), min_size=1, max_size=3).map(frozenset)
numbers = st.integers(0, 255)


class Lifecycle(RuleBasedStateMachine):
    """Any number of clients and workers, and a plain account of what was promised."""

    def __init__(self, given: SimpleNamespace) -> None:
        super().__init__()
        given.fresh_database()
        self.given = given
        self.world = World(POLICY.batching.max_splits)
        self.held: list[Job] = []
        self.keys: dict[str, tuple[frozenset[str], Model | None, UUID]] = {}
        self.plain = {given.digest(sample): sample for sample in SAMPLES}

    @initialize(some=st.lists(samples_of_some, min_size=4, max_size=4))
    def begin(self, some: list[frozenset[str]]) -> None:
        for left_out in some[:2]:
            # What is asked for first is in both.
            self.register(0, left_out - some[2])
            self.accept(0)
        for asked in some[2:]:
            self.submit(0, asked)
        self.plan()

    # One rule for all events: of several, Hypothesis leaves some out of a run.
    @rule(
        event=st.sampled_from(CLIENTS + DECIDERS + OPERATORS + WORKERS),
        number=numbers,
        some=samples_of_some,
    )
    def happens(self, event: str, number: int, some: frozenset[str]) -> None:
        if event in DECISIONS:
            DECISIONS[event](self.world, number)
        elif event not in WRITES:
            getattr(self, event)(number, some)
        elif self.held:
            # One of the last two claims; most claims before them are over.
            self.write(pick(self.held[-2:][::-1], number), *WRITES[event])
        # With a request its clock ends, and so does its pause.
        for promise in self.world.promises:
            promise.paused = promise.paused and promise.status not in ENDS

    def place(self, *_: object) -> None:
        audit.place_all()

    def register(self, _: int, left_out: frozenset[str]) -> None:
        if len(self.world.models) < MOST_MODELS:
            number = len(self.world.models)
            id_ = self.given.register(f"model-{number}", POLICY)
            self.world.models.append(Model(id_, frozenset(SAMPLES) - left_out, HELD_ABOVE))

    def accept(self, number: int, *_: object) -> None:
        if self.checking():
            model = pick(self.checking(), number)
            self.given.accept(model.id, sorted(model.samples))
            self.world.make_ready(model)

    def reject(self, number: int, *_: object) -> None:
        if self.checking():
            model = pick(self.checking(), number)
            self.given.reject(model.id)
            model.status = "rejected"

    def submit(self, number: int, asked: frozenset[str]) -> None:
        # Some are limited to a model, and a few have a key of their own making.
        only = ([None] * 4 + self.world.models)[number % 5]
        key = ([None] * 9 + KEYS)[number % 11]
        if only is not None and only.status == "rejected":
            only = None
        body = (asked, only)
        if key in self.keys and self.keys[key][:2] != body:
            with pytest.raises(IdempotencyKeyReused):
                self.send(*body, key)
            return
        id_, is_new = self.send(*body, key)
        assert is_new is (key not in self.keys)
        if not is_new:
            assert id_ == self.keys[key][2]
            return
        self.world.submit(id_, *body)
        self.keys |= {} if key is None else {key: (*body, id_)}

    def send(self, asked: frozenset[str], only: Model | None, key: str | None) -> tuple[UUID, bool]:
        name = None if only is None else f"model-{self.world.models.index(only)}"
        submission = submissions.Submission(sorted(asked), name, Regulation.GDPR, None, None)
        taken_in = submissions.take_in(submission, self.given.id_key)
        with transaction() as session:
            asked = submissions.Asked("client", taken_in, key and key.encode())
            taken = intake.submit(session, asked)
        return taken.request.id, taken.is_new

    def plan(self, *_: object) -> None:
        busy = {batch.model for batch in self.world.unfinished()}
        jobs = working.plan()
        with transaction() as session:
            rows = [session.get_one(UnlearningJob, job_id) for job_id in jobs]
            origins = dict(session.execute(select(Cohort.id, Cohort.origin_job_id)).all())
            scheduled = {row.id: set(session.scalars(of_job(row.id))) for row in rows}
        for row in rows:
            model = next(model for model in self.world.models if model.id == row.model_id)
            assert model not in busy
            promises = [p for p in self.world.promises if p.id in scheduled[row.id]]
            origin = row.id if row.cohort_id is None else origins[row.cohort_id]
            batch = Batch(row.id, model, promises, row.rebase, origin)
            assert all(promise.erasures[model] == "pending" for promise in promises)
            assert all(model.still_holds(promise.asked) for promise in promises)
            assert promises or batch.rebase
            batch.move_all("scheduled")
            self.world.batches.append(batch)
        self.learn_who_was_forgotten_before()

    def learn_who_was_forgotten_before(self) -> None:
        """Take over which erasures the planner found to be done, of those that are."""
        with transaction() as session:
            rows = session.execute(select(Erasure.request_id, Erasure.model_id, Erasure.status))
            found = {(request, model): status for request, model, status in rows}
        for promise in self.world.promises:
            for model, status in promise.erasures.items():
                if status == "pending" and not model.still_holds(promise.asked):
                    assert found[promise.id, model.id] in ("pending", "completed")
                    promise.erasures[model] = found[promise.id, model.id]

    def claim(self, number: int, *_: object) -> None:
        if not self.world.unfinished():
            return
        batch = pick(self.world.unfinished(), number)
        held = working.claim(batch.id, f"worker-{number % 3}")
        assert (held is not None) is (batch.status == "queued")
        if held is None:
            return
        batch.status, batch.fence = "running", batch.fence + 1
        assert held.fence == batch.fence
        again = batch.model.owed if batch.rebase else set()
        assert {self.plain[d] for d in held.forget_digests} == batch.to_forget | again
        before = {self.plain[d] for d in held.forgotten_digests}
        assert before == batch.model.forgotten.keys() - again
        self.held.append(held)

    def write(
        self, held: Job, act: Callable[[Job], None], follows: Callable[[World, Batch], None]
    ) -> None:
        """Act as a worker does; one whose claim is over must be told so."""
        batch = self.world.batch(held.id)
        if (batch.status, batch.fence) == ("running", held.fence):
            act(held)
            follows(self.world, batch)
        else:
            with pytest.raises(LeaseLost):
                act(held)

    def fall_silent(self, *_: object, attempts: int = ATTEMPTS) -> None:
        working.let_leases_run_out()
        working.expire(attempts)
        for batch in self.world.unfinished():
            if batch.status == "running":
                self.world.count_failure(batch, attempts)

    def retry(self, number: int, *_: object) -> None:
        if not self.world.promises:
            return
        promise = pick(self.world.promises, number)
        stuck = [m for m, status in promise.erasures.items() if status == "needs_attention"]
        if working.try_again(retrying.retry_request, promise.id, possible=bool(stuck)):
            promise.erasures |= dict.fromkeys(stuck, promise.waiting)
            promise.decided["retry"] += 1

    def retry_all(self, number: int, *_: object) -> None:
        if not self.world.batches:
            return
        batch = pick(self.world.batches, number)
        with transaction() as session:
            ids = set(session.scalars(of_job(batch.id)))
        left = [p for p in self.world.promises if p.id in ids]
        stuck = [p for p in left if p.erasures[batch.model] == "needs_attention"]
        if working.try_again(retrying.retry_job, batch.id, possible=bool(stuck)):
            for promise in stuck:
                promise.erasures[batch.model] = promise.waiting
                promise.decided["retry"] += 1

    @invariant()
    def nothing_contradicts_the_account(self) -> None:
        with transaction() as session:
            accounts.hold_against(session, self.world, self.plain)

    def teardown(self) -> None:
        """Bring everything to its end, and see that it has one."""
        for _ in range(len(self.checking())):
            self.accept(0)
        self.fall_silent(attempts=99)
        for number, promise in enumerate(self.world.promises):
            self.retry(number)
            if promise.is_held:
                DECISIONS["approve"](self.world, number)
            if promise.paused:
                DECISIONS["resume"](self.world, number)
        for _ in range(MOST_JOBS):
            self.plan()
            if self.world.unfinished():
                self.claim(0)
                self.write(self.held[-1], *WRITES["publish"])
            elif all(promise.status in ENDS for promise in self.world.promises):
                break
        self.nothing_contradicts_the_account()
        assert {promise.status for promise in self.world.promises} <= ENDS
        audit.place_all()
        with transaction() as session:
            accounts.hold_log_against(session, self.world)

    def checking(self) -> list[Model]:
        return [model for model in self.world.models if model.status == "checking"]


def pick(things: list[Any], number: int) -> Any:
    return things[number % len(things)]


def of_job(job_id: UUID) -> Any:
    return select(Erasure.request_id).where(Erasure.job_id == job_id)
