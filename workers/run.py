"""One job from top to bottom: claim, load, climb the ladder, publish.

No transaction is open while a method runs; what is known of the job is the frozen ``Job``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.artifacts import ArtifactStore
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.errors import LeaseLost, StorageFailed
from app.jobs import leases, outcome, publication
from app.jobs.backoff import retrying
from app.jobs.leases import Job
from app.jobs.outcome import Attempted
from app.jobs.publication import NewVersion
from app.jobs.records import Record
from app.settings import settings
from workers import failures, signing
from workers.artifacts import dump_state
from workers.data import id_key_of
from workers.derived import nudge_derived
from workers.ground import largest_step
from workers.heartbeat import Heartbeat
from workers.ladder import Climbed, climb
from workers.perseverance import while_held
from workers.stopping import Stopping, interruptible, worker_name
from workers.unlearning.errors import Cancelled

log = structlog.get_logger()


def run(job_id: UUID) -> bool:
    """Run a job, if it still waits for a worker; tell whether it did.

    Every end of it is written down.
    """
    with transaction() as session:
        job = leases.claim(session, job_id, worker_name(), settings().lease)
        reach(CrashPoint.CLAIM_BEFORE_COMMIT)
    if job is None:
        log.info("job.not_waiting", job=str(job_id))
        return False
    log.info("job.claimed", job=str(job.id), attempt=job.attempt, fence=job.fence)
    reach(CrashPoint.CLAIM_AFTER_COMMIT)

    def renew(progress: Mapping[str, Any] | None) -> None:
        with transaction() as session:
            leases.renew(session, job, settings().lease, progress)

    try:
        with Heartbeat(renew, settings().lease, f"job {job.id}") as heartbeat:
            _run(job, heartbeat)
    except (LeaseLost, Cancelled):
        # Another claim has the job, or will have it; nothing of this one was published.
        log.warning("job.superseded", job=str(job.id), fence=job.fence)
    return True


def _run(job: Job, heartbeat: Heartbeat) -> None:
    store = ArtifactStore(settings().artifacts_folder)

    def record(rung: Attempted) -> None:
        while_held(heartbeat, lambda: _record(job, rung))

    try:
        # Hours of work would be in vain with a key that may not sign any more.
        signing.introduce_key()
        with interruptible():
            climbed = climb(job, id_key_of(job.id_key_id), store, heartbeat, record)
        if climbed.state is None:
            end = partial(_refuse, job, climbed.rungs)
        else:
            heartbeat.report("publish", 0.0)
            end = partial(_publish, job, store, _store(job, store, climbed), climbed.rungs)
    except Stopping:
        end = partial(_release, job)
    except (LeaseLost, Cancelled):
        raise
    except Exception as error:  # noqa: BLE001  # a worker outlives whatever a recipe does
        end = partial(_give_up, job, error)
    try:
        while_held(heartbeat, end)
    except StorageFailed as error:  # somebody removed the new weights before a row named them
        while_held(heartbeat, partial(_give_up, job, error))


def _publish(job: Job, store: ArtifactStore, new: NewVersion, rungs: Sequence[Attempted]) -> None:
    with transaction() as session:
        version = publication.published_by(session, job)
        if version is None:
            held = store.hold(session, new.digest)
            if held is None or store.find_signature(new.digest) is None:
                raise StorageFailed("The new weights are gone from the artifact store.")
            version = publication.publish(session, job, new, rungs)
            reach(CrashPoint.PUBLISH_BEFORE_COMMIT)
    reach(CrashPoint.PUBLISH_AFTER_COMMIT)
    log.info("version.published", job=str(job.id), version=version.number, digest=version.digest)
    nudge_derived(job.model_id)


def _store(job: Job, store: ArtifactStore, climbed: Climbed) -> NewVersion:
    chosen = climbed.rungs[-1]
    if climbed.state is None or chosen.guarantee is None:
        raise RuntimeError("no rung has weights to store")
    with store.incoming() as file:
        file.write(dump_state(climbed.state))
        reach(CrashPoint.ARTIFACT_BEFORE_RENAME)
        stored = file.keep()
    reach(CrashPoint.ARTIFACT_WRITTEN)
    signing.sign(store, stored.digest)
    return NewVersion(
        change=publication.change_by(job),
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        method=chosen.method,
        guarantee=chosen.guarantee,
        verdict=chosen.outcome,
        drift=climbed.drift,
        record=climbed.record,
        software={} if climbed.record is None else _software(climbed.record),
    )


def _software(record: Record) -> dict[str, str]:
    # The receipt says what computed the weights, for as long as it is kept; the record goes.
    environment = {name: str(value) for name, value in record.inputs["environment"].items()}
    return {**environment, "recipe": record.inputs["recipe_fingerprint"]}


def _record(job: Job, rung: Attempted) -> None:
    with transaction() as session:
        outcome.record(session, job, rung)
    log.info("rung.tried", job=str(job.id), method=rung.method, outcome=rung.outcome)
    reach(CrashPoint.RUNG_RECORDED)


def _refuse(job: Job, rungs: Sequence[Attempted]) -> None:
    with transaction() as session:
        outcome.refuse(session, job, rungs)
    log.error("job.refused", job=str(job.id))


def _release(job: Job) -> None:
    with transaction() as session:
        outcome.release(session, job)
        reach(CrashPoint.RELEASE_BEFORE_COMMIT)
    log.warning("job.released", job=str(job.id))


def _give_up(job: Job, error: Exception) -> None:
    described = failures.describe(error)
    smaller = _smaller(job) if isinstance(error, failures.OUT_OF_MEMORY) else None
    log.error("job.attempt_failed", job=str(job.id), attempt=job.attempt, error=described)
    with transaction() as session:
        if isinstance(error, failures.PERMANENT):
            outcome.fail(session, job, described)
        elif smaller is not None:
            outcome.give_back_smaller(session, job, smaller, described)
        else:
            outcome.give_back(session, job, described, retrying())
        reach(CrashPoint.GIVE_BACK_BEFORE_COMMIT)


def _smaller(job: Job) -> int | None:
    """Return how many records a step may have after memory ran out; None if fewer cannot be."""
    before = job.batch_limit or largest_step(job)
    return before // 2 or None
