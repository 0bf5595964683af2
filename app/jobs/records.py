"""What a published job was given and what came of it, kept so that an audit can repeat it.

A record is an input like any other: it counts as far as the job's row and the audit log, which
nobody can change, say the same.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit import ledger
from app.audit.ledger import Entry
from app.derived.ledgers import Kept, retained_fingerprint
from app.errors import Conflict, NotFound
from app.jobs.leases import Job, freeze
from app.statuses import JobStatus, VersionStatus
from app.tables import (
    AuditEntry,
    JobRecord,
    ManifestEntry,
    ModelVersion,
    Rung,
    UnlearningJob,
)

FORMAT = "lethe-job-record-v1"
RERUN = "job.rerun"


@dataclass(frozen=True, slots=True)
class Record:
    """The inputs of a job's published attempt."""

    inputs: Mapping[str, Any]
    """JSON values; of single samples nothing."""
    losses: bytes | None
    """Numbers about single samples; None where there were none, or their time is over."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published job as its worker had it, what came of it, and what is left of its start."""

    job: Job
    record: Record | None
    digest: str
    """Of the weights that it published."""
    verdict: Mapping[str, Any] | None
    """Of the published rung."""
    rows: Mapping[str, Any]
    """What the rows say of what the record says."""
    logged: Mapping[str, Any]
    """What the audit log says of the published version."""
    parent_number: int
    parent_purged_at: datetime | None
    is_parent_purged: bool


def keep(session: Session, job: Job, digest: str, record: Record) -> None:
    """Store the record of a job, in the transaction that publishes these weights."""
    row = session.get_one(UnlearningJob, job.id)
    inputs = {
        "format": FORMAT,
        **_of_job(job, row),
        **record.inputs,
        "digest": digest,
    }
    session.add(JobRecord(job_id=job.id, inputs=inputs, losses=record.losses))


def find(session: Session, job_id: UUID) -> Published:
    """Return a published job, with the data to forget and to retain as they were then.

    Raises:
        NotFound: there is no such job.
        Conflict: it published nothing.

    """
    row = session.get(UnlearningJob, job_id)
    if row is None:
        raise NotFound("No job has this id.")
    if row.status != JobStatus.PUBLISHED:
        raise Conflict(f"The job is {row.status}: only one that published a version is repeated.")
    stored = session.get(JobRecord, job_id)
    version = session.scalars(select(ModelVersion).where(ModelVersion.job_id == job_id)).one()
    parent = session.get_one(ModelVersion, row.parent_version_id)
    record = None if stored is None else Record(stored.inputs, stored.losses)
    job = _as_claimed(session, row, parent, record)
    return Published(
        job=job,
        record=record,
        digest=version.digest,
        verdict=_verdict(session, job_id, record),
        rows={**_of_job(job, row), "digest": version.digest, "method": version.method},
        logged=_logged(session, version.id),
        parent_number=parent.number,
        parent_purged_at=parent.purged_at,
        is_parent_purged=parent.status == VersionStatus.PURGED,
    )


def contradictions(published: Published) -> list[str]:
    """Return what the record, the rows and the audit log do not agree on, in words."""
    inputs = {} if published.record is None else published.record.inputs
    return [
        *_others("the database", published.rows, inputs, published.rows),
        *_others("the audit log", published.logged, inputs, LOGGED),
    ]


# What the entry of a published version repeats of the record.
LOGGED = ("seed", "digest", "parent_digest", "method", "data_fingerprint", "rebase")


def report(session: Session, job_id: UUID, facts: Mapping[str, Any]) -> None:
    """Put what came of repeating a job into the audit log."""
    ledger.append(session, [Entry(RERUN, job_id, facts)])


def _others(
    where: str, said: Mapping[str, Any], inputs: Mapping[str, Any], names: Iterable[str]
) -> Iterator[str]:
    for name in names:
        if said.get(name) != inputs.get(name):
            yield f"{where} has another {name} than the record"


def _of_job(job: Job, row: UnlearningJob) -> dict[str, Any]:
    policy = json.dumps(row.policy, sort_keys=True, separators=(",", ":"))
    gone = job.forget_digests | job.forgotten_digests
    return {
        "seed": job.seed,
        "batch_limit": job.batch_limit,
        "rebase": job.rebase,
        "recipe": job.recipe,
        "parent_digest": job.parent_digest,
        "data_fingerprint": job.data_fingerprint,
        # As the row has it: what a later release adds to a policy is not in it.
        "policy": "sha256:" + hashlib.sha256(policy.encode()).hexdigest(),
        "forget": len(job.forget_digests),
        "forgotten": len(job.forgotten_digests),
        "retained": retained_fingerprint(job.data_fingerprint, gone),
    }


def _as_claimed(
    session: Session, row: UnlearningJob, parent: ModelVersion, record: Record | None
) -> Job:
    inputs = {} if record is None else record.inputs
    own = _forgotten_by(session, row.model_id, [row.id])
    earlier, owed = _before(session, parent)
    before = _forgotten_by(session, row.model_id, earlier)
    again = _forgotten_by(session, row.model_id, owed) if row.rebase else frozenset()
    return freeze(
        session,
        row,
        forget=own | again,
        forgotten=before - again,
        attempt=inputs.get("attempt"),
        # What came of the references is in the record.
        gradient_ledger=_ledger(inputs),
    )


def _ledger(inputs: Mapping[str, Any]) -> Kept | None:
    kept = inputs.get("ledger")
    return None if kept is None else Kept(**kept)


def _before(session: Session, parent: ModelVersion) -> tuple[list[UUID], list[UUID]]:
    """Return the jobs up to a parent version, and those of them since the last exact version."""
    chain = session.execute(
        select(ModelVersion.job_id, ModelVersion.guarantee)
        .where(ModelVersion.model_id == parent.model_id, ModelVersion.number <= parent.number)
        .order_by(ModelVersion.number)
    ).all()
    jobs: list[UUID] = []
    owed: list[UUID] = []
    for job_id, guarantee in chain:
        if job_id is None:
            continue
        jobs.append(job_id)
        owed = [] if guarantee == "exact" else [*owed, job_id]
    return jobs, owed


def _forgotten_by(session: Session, model_id: UUID, job_ids: list[UUID]) -> frozenset[bytes]:
    return frozenset(
        session.scalars(
            select(ManifestEntry.sample_digest).where(
                ManifestEntry.model_id == model_id, ManifestEntry.forgotten_by_job_id.in_(job_ids)
            )
        )
    )


def _verdict(session: Session, job_id: UUID, record: Record | None) -> Mapping[str, Any] | None:
    if record is None:
        return None
    key = {name: record.inputs[name] for name in ("attempt", "position")}
    rung = session.get(Rung, {"job_id": job_id, **key})
    return None if rung is None else rung.verdict


def _logged(session: Session, version_id: UUID) -> Mapping[str, Any]:
    payload = session.scalar(
        select(AuditEntry.payload).where(
            AuditEntry.subject == version_id, AuditEntry.event == "version.current"
        )
    )
    return {} if payload is None else dict(json.loads(payload)["facts"])
