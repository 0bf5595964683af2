"""Read the log as events about requests and jobs, in its order."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, func, select
from sqlalchemy.orm import Session

from app.audit import ledger
from app.statuses import JobStatus
from app.tables import (
    AuditEntry,
    AuditLeaf,
    DeletionRequest,
    Erasure,
    ModelVersion,
    UnlearningJob,
)

# Entries of the log that are looked through in one transaction.
RANGE = 2_000

# What the log tells besides, as of keys and recipients, is for auditors.
TOLD_OF = ("decision", "deletion_request", "erasure", "job", "version")


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of the log at its position, and whom it is about."""

    position: int
    at: str
    event: str
    subject: UUID
    facts: Mapping[str, Any]
    request_id: UUID | None
    """The request that it is about, itself or by one of its erasures."""
    client: str | None
    """Whose request that is."""
    job_id: UUID | None
    """The job that it is about, itself or by the version that it published."""

    @property
    def of(self) -> str:
        """What the subject is."""
        return self.event.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Batch:
    """What the log tells from some position on, all of it up to another one."""

    told: Sequence[Told]
    upto: int


def size(session: Session) -> int:
    """Return how many entries have a place; all of them can be read from now on."""
    return ledger.head(session).size


def of_all(session: Session, start: int, client: str | None = None) -> Batch:
    """Return some of what the log tells from a position on; of one client's requests, if named."""
    end = max(start, min(size(session), start + RANGE))
    chosen = [AuditLeaf.position >= start]
    if client is not None:
        chosen.append(DeletionRequest.client == client)
    return Batch(_read(session, end, *chosen), end)


def of_request(session: Session, request_id: UUID, start: int) -> Batch:
    """Return what the log tells of a request, of its erasures and of the jobs these were in."""
    end = size(session)
    erasures = session.scalars(select(Erasure.id).where(Erasure.request_id == request_id)).all()
    own = _read(session, end, AuditEntry.subject == _any_of([request_id, *erasures]))
    # An erasure that left a job does not name it any more; the log does.
    jobs = {UUID(told.facts["job"]) for told in own if told.event == "erasure.scheduled"}
    told = sorted([*own, *_of_jobs(session, jobs, end)], key=lambda each: each.position)
    return Batch([each for each in told if each.position >= start], max(start, end))


def of_job(session: Session, job_id: UUID, start: int) -> Batch:
    """Return what the log tells of a job and of the version that it published."""
    end = size(session)
    told = _of_jobs(session, [job_id], end)
    return Batch([each for each in told if each.position >= start], max(start, end))


def progress(session: Session) -> dict[UUID, Mapping[str, Any]]:
    """Return how far each running job is, as its worker reported last."""
    rows = session.execute(
        select(UnlearningJob.id, UnlearningJob.progress).where(
            UnlearningJob.status == JobStatus.RUNNING, UnlearningJob.progress.is_not(None)
        )
    )
    return {job_id: reported for job_id, reported in rows if reported is not None}


def _of_jobs(session: Session, job_ids: Collection[UUID], end: int) -> list[Told]:
    if not job_ids:
        return []
    published = select(ModelVersion.id).where(ModelVersion.job_id == _any_of(job_ids))
    subjects = [*job_ids, *session.scalars(published)]
    told = _read(session, end, AuditEntry.subject == _any_of(subjects))
    # Versions are withdrawn by other jobs than the one that published them.
    return [each for each in told if each.job_id in job_ids]


def _read(session: Session, end: int, *chosen: ColumnElement[bool]) -> list[Told]:
    request_id = func.coalesce(Erasure.request_id, AuditEntry.subject)
    rows = session.execute(
        select(AuditLeaf.position, AuditEntry.payload, DeletionRequest.id, DeletionRequest.client)
        .select_from(AuditLeaf)
        .join(AuditEntry, AuditEntry.id == AuditLeaf.entry_id)
        .outerjoin(Erasure, Erasure.id == AuditEntry.subject)
        .outerjoin(DeletionRequest, DeletionRequest.id == request_id)
        .where(AuditLeaf.position < end, *chosen)
        .where(func.split_part(AuditEntry.event, ".", 1).in_(TOLD_OF))
        .order_by(AuditLeaf.position)
    )
    return [_told(*row) for row in rows]


def _told(position: int, payload: str, request_id: UUID | None, client: str | None) -> Told:
    entry = json.loads(payload)
    event, subject, facts = entry["event"], UUID(entry["subject"]), entry["facts"]
    job_id = None
    if event.startswith("job."):
        job_id = subject
    elif event == "version.current" and facts.get("job"):
        job_id = UUID(facts["job"])
    return Told(position, entry["at"], event, subject, facts, request_id, client, job_id)


def _any_of(ids: Collection[UUID]) -> Any:
    # One parameter, however many ids there are.
    return any_(bindparam(None, list(ids), ARRAY(Uuid)))
