"""What becomes of the erasures of a batch that ended without a version.

A batch may fail for one erasure in it: a class that the model cannot lose, records that make a
recipe's code fail. So the batch is split in two halves, each a batch of its own, and so on, until
that one stands alone and the others went through: about 2·log₂(n) further jobs for one of n.
"""

from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.deletions.settlement import settle
from app.statuses import ErasureStatus
from app.tables import Cohort, Erasure, UnlearningJob
from lethe.policy import Policy


def leave(session: Session, job: UnlearningJob, problem: str, *, split: bool) -> None:
    """Split the erasures of a job that failed if they may differ, or ask for attention for all.

    ``split`` says whether the failure may be that of some erasures and not of others.
    """
    erasures = session.scalars(
        select(Erasure)
        .where(Erasure.job_id == job.id)
        .order_by(Erasure.due_at.asc().nulls_last(), Erasure.created_at, Erasure.id)
    ).all()
    parts = _halves(erasures) if split and _may_split(session, job, erasures) else []
    if parts:
        _put_back(session, job, parts)
    else:
        lifecycle.move(
            session,
            Erasure,
            [erasure.id for erasure in erasures],
            ErasureStatus.NEEDS_ATTENTION,
            values={"problem": problem},
            facts={"job": str(job.id), "reason": job.status},
        )
    settle(session, [erasure.request_id for erasure in erasures])


def _may_split(session: Session, job: UnlearningJob, erasures: Sequence[Erasure]) -> bool:
    try:
        most = Policy.model_validate(job.policy).batching.max_splits
    except ValidationError:
        return False  # a policy of another release; one job must not stop the sweep
    made = session.scalar(select(func.count()).where(Cohort.origin_job_id == _origin(session, job)))
    return len(erasures) > 1 and (made or 0) + 2 <= most


def _halves(erasures: Sequence[Erasure]) -> list[Sequence[Erasure]]:
    middle = len(erasures) // 2
    return [erasures[:middle], erasures[middle:]]


def _put_back(session: Session, job: UnlearningJob, parts: list[Sequence[Erasure]]) -> None:
    origin = _origin(session, job)
    for part in parts:
        cohort = Cohort(origin_job_id=origin)
        session.add(cohort)
        session.flush()
        lifecycle.move(
            session,
            Erasure,
            [erasure.id for erasure in part],
            ErasureStatus.PENDING,
            values={"job_id": None, "cohort_id": cohort.id},
            facts={"job": str(job.id), "reason": job.status, "cohort": str(cohort.id)},
        )


def _origin(session: Session, job: UnlearningJob) -> UUID:
    if job.cohort_id is None:
        return job.id
    return session.get_one(Cohort, job.cohort_id).origin_job_id
