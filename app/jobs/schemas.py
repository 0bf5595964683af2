"""What jobs look like on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from app.jobs.service import JobView
from app.statuses import JobStatus, RungOutcome
from app.wire import Answer, VersionName, version_name


class RungAnswer(Answer):
    """One method that the job tried, with all that verification found."""

    attempt: int = Field(examples=[1])
    position: int = Field(examples=[0])
    method: str = Field(examples=["iau"])
    guarantee: str | None = Field(examples=["approximate"])
    outcome: RungOutcome = Field(
        description="`passed`, `failed` or `inconclusive` as its verdict has it; `not_run` where "
        "the method made no weights."
    )
    verdict: dict[str, Any] | None = Field(description="The checks; null if it did not run.")
    evidence: dict[str, Any] = Field(description="What the method did, in numbers.")
    seconds: float


class Progress(Answer):
    """How far a running job is."""

    phase: str = Field(examples=["nabla_tau"])
    fraction: float = Field(ge=0, le=1, examples=[0.4])


class JobAnswer(Answer):
    """One batch of erasures for one model."""

    id: UUID
    model: str = Field(examples=["digits"])
    status: JobStatus
    erasure_count: int
    rebase: bool = Field(
        description="Whether it pays off unlearning debt, so that only a retrain will do."
    )
    sample_count: int = Field(description="Samples to forget that no earlier job forgot.")
    attempts: int = Field(description="How often a worker took it, however that ended.")
    failures: int = Field(description="How many of these ended in an error or in silence.")
    interruptions: int = Field(
        description="How many ended because an erasure of the batch was withdrawn."
    )
    not_before: datetime | None = Field(description="End of the pause after an error.")
    batch_limit: int | None = Field(
        description="Most records in a step, after memory ran out with more."
    )
    progress: Progress | None
    error: str | None
    version: VersionName | None = Field(description="The version that the job published.")
    rungs: list[RungAnswer]
    due_at: datetime | None = Field(description="The nearest legal deadline in the batch.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(Answer):
    """Some jobs, newest first."""

    items: list[JobAnswer]
    next_cursor: str | None


def describe(view: JobView) -> JobAnswer:
    """Return a job as its readers see it."""
    job = view.job
    return JobAnswer(
        id=job.id,
        model=view.model,
        status=JobStatus(job.status),
        erasure_count=job.erasure_count,
        rebase=job.rebase,
        sample_count=job.sample_count,
        attempts=job.attempts,
        failures=job.failures,
        interruptions=job.interruptions,
        not_before=job.not_before,
        batch_limit=job.batch_limit,
        progress=None if job.progress is None else Progress(**job.progress),
        error=job.error,
        version=version_name(view.version),
        rungs=[
            RungAnswer(
                attempt=rung.attempt,
                position=rung.position,
                method=rung.method,
                guarantee=rung.guarantee,
                outcome=RungOutcome(rung.outcome),
                verdict=rung.verdict,
                evidence=rung.evidence,
                seconds=rung.seconds,
            )
            for rung in view.rungs
        ],
        due_at=job.due_at,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
