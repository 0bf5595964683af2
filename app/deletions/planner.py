"""Batch pending erasures into unlearning jobs, by each model's policy.

One planner at a time: another that finds the lock taken has nothing to do. What a pass reads of a
model comes from the ends of indexes, whatever its backlog; samples are counted only where nothing
else says that a job is due, and no further than a batch holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from secrets import SystemRandom
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import ARRAY, BigInteger, Uuid, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from app.db import clock, try_lock
from app.deletions import batches
from app.statuses import JobStatus, ModelStatus, ReferenceStatus
from app.tables import Erasure, ModelVersion, ReferenceSet, RegisteredModel, UnlearningJob
from lethe.policy import Policy

# Written out, as batches.IS_PENDING is, for the indexes of these alone.
UNFINISHED = [
    literal(status.value, literal_execute=True) for status in (JobStatus.QUEUED, JobStatus.RUNNING)
]
BUILDING = literal(ReferenceStatus.BUILDING.value, literal_execute=True)

# Samples that one pass counts at most, or one model's: some ten milliseconds, and ten times that
# where PostgreSQL has to look at each row. Beyond it, models take turns by chance; one that has to
# start for its age or its deadline needs no count.
COUNTED_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a model gets a job, short of counting what it has pending."""

    model_id: UUID
    policy: Mapping[str, Any]
    sample_count: int | None
    debt_samples: int
    debt_drift: float
    rebase_tried: bool
    """A retrain of the current version."""
    building: bool
    """References of the model are still to be made."""
    last_job_at: datetime | None
    oldest_at: datetime | None
    """When the oldest pending erasure came; None if nothing is pending."""
    nearest_due_at: datetime | None
    has_parts: bool
    """Parts of a batch that failed are pending."""


class Due(Enum):
    """What a model's policy wants a job for now."""

    NOTHING = auto()
    A_FULL_BATCH = auto()
    PARTS = auto()
    ANYTHING = auto()
    REBASE = auto()


def due(session: Session) -> list[UUID]:
    """Return the models that should get a job now, those with the nearest deadline first.

    At the end come those whose policies cannot be read any more: whoever plans them gets to know.
    """
    if not try_lock(session, "planner"):
        return []
    at = clock(session)
    found: list[UUID] = []
    broken: list[UUID] = []
    unsure: dict[UUID, int] = {}
    for standing in _standings(session):
        try:
            policy = Policy.model_validate(standing.policy)
        except ValidationError:
            broken.append(standing.model_id)
            continue
        what = what_is_due(standing, policy, at)
        if what is not Due.NOTHING:
            found.append(standing.model_id)
        if what is Due.A_FULL_BATCH:
            unsure[standing.model_id] = policy.batching.max_samples
    full = _full(session, _few(unsure))
    return [model_id for model_id in found if model_id not in unsure or model_id in full] + broken


def plan_model(session: Session, model_id: UUID) -> UUID | None:
    """Make the job that is due for a model; return its id, or None if none is due any more.

    Raises:
        pydantic.ValidationError: the model's policy cannot be read.

    """
    if not try_lock(session, "planner"):
        return None
    standing = next(iter(_standings(session, model_id)), None)
    if standing is None:
        return None
    policy = Policy.model_validate(standing.policy)
    most = policy.batching.max_samples
    what = what_is_due(standing, policy, clock(session))
    if what is Due.NOTHING or (
        what is Due.A_FULL_BATCH and not _full(session, {standing.model_id: most})
    ):
        return None
    return batches.make_job(
        session,
        session.get_one(RegisteredModel, model_id),
        most,
        rebase=what is Due.REBASE,
        parts_only=what is Due.PARTS,
    )


def plan(session: Session) -> list[UUID]:
    """Make all jobs that are due in the caller's transaction; return them."""
    jobs = [plan_model(session, model_id) for model_id in due(session)]
    return [job_id for job_id in jobs if job_id is not None]


def what_is_due(standing: Standing, policy: Policy, at: datetime) -> Due:
    """Tell what the policy wants a job for at this time."""
    batching = policy.batching
    nearest, oldest, last = standing.nearest_due_at, standing.oldest_at, standing.last_job_at
    urgent = nearest is not None and nearest - at <= batching.deadline_headroom
    if last is not None and at - last < batching.min_spacing and not urgent:
        return Due.NOTHING
    if _is_indebted(standing, policy):
        return Due.REBASE
    if oldest is None:
        return Due.NOTHING
    waited = at - oldest
    if standing.building and waited < policy.references.max_delay and not urgent:
        return Due.NOTHING
    if urgent or waited >= batching.max_wait:
        return Due.ANYTHING
    return Due.PARTS if standing.has_parts else Due.A_FULL_BATCH


def _is_indebted(standing: Standing, policy: Policy) -> bool:
    """Tell whether a model has to be retrained before it may forget more approximately."""
    debt = policy.debt
    share = standing.debt_samples / standing.sample_count if standing.sample_count else 0.0
    if share <= debt.max_share and standing.debt_drift <= debt.max_drift:
        return False
    # A retrain that did not come through would not do so every few seconds from now on either.
    return "retrain" in policy.ladder and not standing.rebase_tried


def _standings(session: Session, model_id: UUID | None = None) -> list[Standing]:
    """Return the models without an unfinished job that have erasures pending, or debt."""
    model, version, job = RegisteredModel, ModelVersion, UnlearningJob
    of_model = Erasure.model_id == model.id, batches.IS_PENDING
    unfinished = exists().where(job.model_id == model.id, job.status.in_(UNFINISHED))
    oldest_at = select(func.min(Erasure.created_at)).where(*of_model).scalar_subquery()
    nearest_due_at = select(func.min(Erasure.due_at)).where(*of_model).scalar_subquery()
    statement = (
        select(
            model.id,
            model.policy,
            model.sample_count,
            version.debt_samples,
            version.debt_drift,
            exists().where(job.parent_version_id == version.id, job.rebase),
            exists().where(ReferenceSet.model_id == model.id, ReferenceSet.status == BUILDING),
            select(func.max(job.created_at)).where(job.model_id == model.id).scalar_subquery(),
            oldest_at.label("oldest_at"),
            nearest_due_at.label("nearest_due_at"),
            exists().where(*of_model, Erasure.cohort_id.is_not(None)),
        )
        .join(version, version.id == model.current_version_id)
        .where(
            model.status == ModelStatus.READY,
            ~unfinished,
            or_(version.debt_samples > 0, exists().where(*of_model)),
        )
        .order_by(nearest_due_at.asc().nulls_last(), oldest_at, model.id)
    )
    if model_id is not None:
        statement = statement.where(model.id == model_id)
    return [Standing(*row) for row in session.execute(statement)]


def _few(most: Mapping[UUID, int]) -> dict[UUID, int]:
    """Choose as many models by chance as can be counted at once."""
    chosen: dict[UUID, int] = {}
    left = COUNTED_AT_ONCE
    for model_id in SystemRandom().sample(list(most), len(most)):
        left -= most[model_id]
        if chosen and left < 0:
            break
        chosen[model_id] = most[model_id]
    return chosen


def _full(session: Session, most: Mapping[UUID, int]) -> set[UUID]:
    """Return those of the models that have at least so many samples pending."""
    if not most:
        return set()
    asked = (
        func.unnest(
            bindparam("ids", list(most), ARRAY(Uuid)),
            bindparam("most", list(most.values()), ARRAY(BigInteger)),
        )
        .table_valued("id", "most")
        .render_derived()
    )
    # Each erasure has at least one sample, so that no more rows than this are needed.
    pending = (
        select(Erasure.sample_count)
        .where(Erasure.model_id == asked.c.id, batches.IS_PENDING)
        .limit(asked.c.most)
        .correlate(asked)
        .subquery()
        .lateral()
    )
    counted = select(func.sum(pending.c.sample_count)).scalar_subquery()
    return set(session.scalars(select(asked.c.id).where(counted >= asked.c.most)))
