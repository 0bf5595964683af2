"""Read jobs, with the names, versions and rungs that belong to them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from app import pages
from app.errors import NotFound
from app.statuses import JobStatus
from app.tables import ModelVersion, RegisteredModel, Rung, UnlearningJob


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs to list; what is not given does not count."""

    statuses: Sequence[JobStatus] = ()
    model: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


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
    session: Session, wanted: Filter, cursor: str | None, limit: int
) -> pages.Page[UnlearningJob]:
    """Return a page of the jobs that a filter lets through, newest first."""
    row = UnlearningJob
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        conditions.append(row.status.in_(wanted.statuses))
    if wanted.model is not None:
        named = select(RegisteredModel.id).where(RegisteredModel.name == wanted.model)
        conditions.append(row.model_id == named.scalar_subquery())
    if wanted.created_from is not None:
        conditions.append(row.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(row.created_at < wanted.created_to)
    statement: Select[tuple[UnlearningJob]] = select(UnlearningJob)
    return pages.newest_first(
        session,
        statement.where(*conditions),
        row.created_at.expression,
        row.id.expression,
        cursor,
        limit,
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
