"""What the policies and the earlier jobs of models say about their next ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Select,
    Uuid,
    any_,
    bindparam,
    exists,
    extract,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.orm import Session

from app.deletions import batches
from app.statuses import JobStatus, ReferenceStatus
from app.tables import Erasure, ReferenceSet, RegisteredModel, UnlearningJob

# Published jobs of each model that are looked at: enough for nine in ten, and the recent ones.
MEASURED = 20
UNFINISHED = [
    literal(status.value, literal_execute=True) for status in (JobStatus.QUEUED, JobStatus.RUNNING)
]
PUBLISHED = literal(JobStatus.PUBLISHED.value, literal_execute=True)
BUILDING = literal(ReferenceStatus.BUILDING.value, literal_execute=True)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known of a model's next job, and of those before it."""

    policy: Mapping[str, Any]
    job_created_at: datetime | None
    """Of its unfinished job."""
    job_running: bool
    last_job_at: datetime | None
    oldest_at: datetime | None
    nearest_due_at: datetime | None
    building: bool
    half_seconds: float | None
    """What half of the published jobs took at most; None if there are none."""
    most_seconds: float | None
    """What nine in ten took at most."""


def prospects_of(session: Session, models: Collection[UUID]) -> dict[UUID, Prospect]:
    """Return what is known of each of the models, in one statement."""
    rows = session.execute(_look(), {"models": list(models)})
    return {id_: Prospect(*known) for id_, *known in rows}


@cache
def _look() -> Select[Any]:
    # Each poll of an open request asks this; to make the statement takes longer than to answer it.
    model, job = RegisteredModel, UnlearningJob
    pending = Erasure.model_id == model.id, batches.IS_PENDING
    recent = (
        select(extract("epoch", job.finished_at - job.created_at).label("seconds"))
        .where(job.model_id == model.id, job.status == PUBLISHED)
        .order_by(job.created_at.desc())
        .limit(MEASURED)
        .correlate(model)
        .subquery()
    )
    took = select(
        *(
            func.percentile_cont(share).within_group(recent.c.seconds).label(name)
            for share, name in ((0.5, "half"), (0.9, "most"))
        )
    ).lateral()
    unfinished = (
        select(job.created_at, (job.status == JobStatus.RUNNING).label("running"))
        .where(job.model_id == model.id, job.status.in_(UNFINISHED))
        .correlate(model)
        .lateral()
    )
    return (
        select(
            model.id,
            model.policy,
            unfinished.c.created_at,
            func.coalesce(unfinished.c.running, False),
            select(func.max(job.created_at)).where(job.model_id == model.id).scalar_subquery(),
            select(func.min(Erasure.created_at)).where(*pending).scalar_subquery(),
            select(func.min(Erasure.due_at)).where(*pending).scalar_subquery(),
            exists().where(ReferenceSet.model_id == model.id, ReferenceSet.status == BUILDING),
            took.c.half,
            took.c.most,
        )
        .select_from(model)
        .join(took, true())
        .outerjoin(unfinished, true())
        .where(model.id == any_(bindparam("models", type_=ARRAY(Uuid))))
    )
