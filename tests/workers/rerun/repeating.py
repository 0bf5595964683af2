"""What tests of repeated jobs begin with, change on the sly, and look up."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app import lifecycle
from app.artifacts import ArtifactStore
from app.db import now, transaction
from app.derived import leasing
from app.registry import service as registry
from app.settings import settings
from app.statuses import VersionStatus
from app.tables import (
    AuditEntry,
    GradientLedger,
    JobRecord,
    ModelVersion,
    ReferenceSet,
    RegisteredModel,
    UnlearningJob,
)
from lethe.policy import Batching, Bounds, Debt, Policy, References, Verdicts
from tests.workers.rerun import recipes
from workers import check, ledgers, references, run
from workers.artifacts import dump_state
from workers.rerun_job import Result, repeat

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
OTHER = "sha256:" + "0" * 64
NOW = Batching(max_wait=timedelta(0))
# Small batches show little; here the outcome counts, not what it shows.
LENIENT: dict[str, Any] = {
    "batching": NOW,
    "bounds": Bounds(leak_margin=0.5, leak_left=1.0, utility_budget=10.0),
    "verdicts": Verdicts(inconclusive="publish"),
    "debt": Debt(max_share=1.0, max_drift=1e6),
    "references": References(count=4),
}
UNJUDGED = {**LENIENT, "references": References(count=0)}


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def serve(recipe: str, policy: Policy) -> UUID:
    """Register a trained model of a recipe, and check it as a worker does."""
    made = getattr(recipes, recipe.title())()
    model = made.build_model()
    made.train(model, made.training_data(), 0)
    stored = store().put([dump_state(model.state_dict())])
    with transaction() as session:
        model_id = registry.register(session, recipe, recipe, stored.digest, policy).id
    check.check(model_id)
    return model_id


def publish(job_id: UUID) -> UUID:
    """Run a job that has to publish a version."""
    run.run(job_id)
    with transaction() as session:
        row = session.get_one(UnlearningJob, job_id)
    assert row.status == "published", row.error
    return job_id


def follow(model_id: UUID, policy: Policy) -> None:
    """Have a model's next jobs follow another policy."""
    with transaction() as session:
        session.get_one(RegisteredModel, model_id).policy = policy.model_dump(mode="json")


def waiting(table: Any) -> UUID:
    """Return the one row of a table of derived things that waits for a worker."""
    with transaction() as session:
        (found,) = leasing.waiting(session, table)
    return found


def sum_gradients() -> None:
    ledgers.refresh(waiting(GradientLedger))


def make_references() -> None:
    set_id = waiting(ReferenceSet)
    while references.make_reference(set_id):
        pass


def purge(version: ModelVersion) -> None:
    """Remove a version for good, as the service does when its time is over."""
    with transaction() as session:
        lifecycle.move_one(
            session,
            ModelVersion,
            version.id,
            VersionStatus.PURGED,
            values={"purged_at": now()},
        )
        session.execute(update(JobRecord).values(losses=None))
    store().remove(version.digest)


def record(job_id: UUID) -> JobRecord:
    with transaction() as session:
        return session.get_one(JobRecord, job_id)


def parent(job_id: UUID) -> ModelVersion:
    with transaction() as session:
        row = session.get_one(UnlearningJob, job_id)
        return session.get_one(ModelVersion, row.parent_version_id)


@contextmanager
def changed(table: Any, condition: Any, **values: Any) -> Iterator[None]:
    """Change columns of a row behind everybody's back, and put them back."""
    columns = [getattr(table, name) for name in values]
    with transaction() as session:
        before = session.execute(select(*columns).where(condition)).one()
    _write(table, condition, values)
    yield
    _write(table, condition, dict(zip(values, before, strict=True)))


@contextmanager
def recorded(job_id: UUID, **inputs: Any) -> Iterator[None]:
    """Change inputs in a job's record behind everybody's back, and put them back."""
    merged = {**record(job_id).inputs, **inputs}
    with changed(JobRecord, JobRecord.job_id == job_id, inputs=merged):
        yield


def reports(job_id: UUID) -> list[Mapping[str, Any]]:
    """Return the facts of what the audit log says of the job's repetitions."""
    entries = select(AuditEntry.payload).where(
        AuditEntry.subject == job_id, AuditEntry.event == "job.rerun"
    )
    with transaction() as session:
        found = session.scalars(entries.order_by(AuditEntry.id)).all()
    return [json.loads(payload)["facts"] for payload in found]


def outcome(job_id: UUID) -> tuple[str, str]:
    """Repeat a job in this process; return what came of it, and why."""
    result: Result = repeat(job_id)
    return result.outcome, " ".join(result.reasons)


def _write(table: Any, condition: Any, values: Mapping[str, Any]) -> None:
    with transaction() as session:
        session.execute(update(table).where(condition).values(**values))
