"""Read jobs, with the names, versions and rungs that belong to them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import pages
from app.errors import NotFound
from app.statuses import JobStatus
from app.tables import ModelVersion, RegisteredModel, Rung, UnlearningJob


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with what its reader asks for."""

    job: UnlearningJob
    model: str
    version: ModelVersion | None
    rungs: Sequence[Rung]


def get(session: Session, job_id: UUID) -> JobView:
    """Return one job.

    Raises:
        NotFound: there is none of this id.

    """
    job = session.get(UnlearningJob, job_id)
    if job is None:
        raise NotFound("No job has this id.")
    return views(session, [job])[0]


def browse(
    session: Session, status: JobStatus | None, cursor: str | None, limit: int
) -> pages.Page[UnlearningJob]:
    """Return a page of jobs, newest first."""
    statement: Select[tuple[UnlearningJob]] = select(UnlearningJob)
    if status is not None:
        statement = statement.where(UnlearningJob.status == status)
    at = UnlearningJob.created_at
    return pages.newest_first(
        session, statement, at.expression, UnlearningJob.id.expression, cursor, limit
    )


def views(session: Session, jobs: Collection[UnlearningJob]) -> list[JobView]:
    """Return jobs with the names, versions and rungs that belong to them."""
    ids = [job.id for job in jobs]
    names = dict(
        session.execute(
            select(RegisteredModel.id, RegisteredModel.name).where(
                RegisteredModel.id.in_({job.model_id for job in jobs})
            )
        ).all()
    )
    versions = {
        version.job_id: version
        for version in session.scalars(select(ModelVersion).where(ModelVersion.job_id.in_(ids)))
    }
    rungs: dict[UUID, list[Rung]] = {id_: [] for id_ in ids}
    for rung in session.scalars(
        select(Rung).where(Rung.job_id.in_(ids)).order_by(Rung.attempt, Rung.position)
    ):
        rungs[rung.job_id].append(rung)
    return [JobView(job, names[job.model_id], versions.get(job.id), rungs[job.id]) for job in jobs]
