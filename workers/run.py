"""One job from top to bottom: claim, load, climb the ladder, publish.

No transaction is open while a method runs; what is known of the job is the frozen ``Job``.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog

from app.artifacts import ArtifactStore
from app.db import transaction
from app.errors import LeaseLost
from app.jobs import leases, outcome, publication
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from app.jobs.publication import NewVersion
from app.settings import settings
from workers import failures
from workers.artifacts import dump_state
from workers.data import id_key_of
from workers.derived import nudge_derived
from workers.heartbeat import Heartbeat
from workers.ladder import Climbed, climb
from workers.unlearning.errors import Cancelled

log = structlog.get_logger()


def run(job_id: UUID) -> None:
    """Run a job, if it still waits for a worker; every end of it is written down."""
    with transaction() as session:
        job = leases.claim(session, job_id, _worker_name(), settings().lease)
    if job is None:
        log.info("job.not_waiting", job=str(job_id))
        return
    log.info("job.claimed", job=str(job.id), attempt=job.attempt, fence=job.fence)

    def renew(progress: Mapping[str, Any] | None) -> None:
        with transaction() as session:
            leases.renew(session, job, settings().lease, progress)

    try:
        with Heartbeat(renew, settings().lease, f"job {job.id}") as heartbeat:
            _run(job, heartbeat)
    except (LeaseLost, Cancelled):
        # Another claim has the job, or will have it; nothing of this one was published.
        log.warning("job.superseded", job=str(job.id), fence=job.fence)
    except Exception as error:  # noqa: BLE001  # a worker outlives whatever a recipe does
        _give_up(job, error)


def _run(job: Job, heartbeat: Heartbeat) -> None:
    id_key = id_key_of(job.id_key_id)
    store = ArtifactStore(settings().artifacts_folder)
    climbed = climb(job, id_key, store, heartbeat, lambda rung: _record(job, rung))
    if climbed.state is None:
        with transaction() as session:
            outcome.refuse(session, job, climbed.rungs)
        log.error("job.refused", job=str(job.id))
        return
    heartbeat.report("publish", 0.0)
    new = _store(store, climbed)
    with transaction() as session:
        version = publication.publish(session, job, new, climbed.rungs)
    log.info("version.published", job=str(job.id), version=version.number, digest=version.digest)
    nudge_derived(job.model_id)


def _store(store: ArtifactStore, climbed: Climbed) -> NewVersion:
    chosen = climbed.rungs[-1]
    if climbed.state is None or chosen.guarantee is None:
        raise RuntimeError("no rung has weights to store")
    stored = store.put([dump_state(climbed.state)])
    return NewVersion(
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        method=chosen.method,
        guarantee=chosen.guarantee,
        verdict=chosen.outcome,
        drift=climbed.drift,
    )


def _record(job: Job, rung: Attempted) -> None:
    with transaction() as session:
        outcome.record(session, job, rung)
    log.info("rung.tried", job=str(job.id), method=rung.method, outcome=rung.outcome)


def _give_up(job: Job, error: Exception) -> None:
    described = failures.describe(error)
    log.error("job.attempt_failed", job=str(job.id), attempt=job.attempt, error=described)
    try:
        with transaction() as session:
            if isinstance(error, failures.PERMANENT):
                outcome.fail(session, job, described)
            else:
                outcome.give_back(session, job, described, settings().job_attempts)
    except LeaseLost:
        log.warning("job.superseded", job=str(job.id), fence=job.fence)


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
