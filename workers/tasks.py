"""The tasks: each looks at rows and does what is still needed, however often it is called.

What needs torch is imported when it is called, since the scheduler runs without torch.
"""

import time
from contextlib import suppress
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError

from app import queue
from app.artifacts import ArtifactStore
from app.audit import heads, witnesses
from app.audit.service import place_all
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions import planner
from app.derived import leasing, ledger_files
from app.errors import NotSigning, RolledBack
from app.jobs import leases, outcome
from app.jobs.backoff import retrying
from app.opendsr import announcing as _controllers  # noqa: F401  # tells them, and signs for it
from app.recall.notices import Reminder
from app.registry import checking
from app.retention import delivery_log, purging
from app.settings import settings
from app.tables import GradientLedger, ReferenceSet
from app.webhooks.delivering import Senders
from workers.celery_app import app

log = structlog.get_logger()

# Of this process: the threads that send messages, when it last removed those of old, and when it
# last said what is overdue.
senders = Senders()
clearing = delivery_log.Clearing()
reminder = Reminder()

# Jobs that a nudge tries to claim, at most; what it misses, the sweep finds.
MOST_TRIED = 20

# A pass of the planner begins no further job after this: the sweep waits behind it in the same
# process, and the next pass looks anew at whose deadline is the nearest. With what it takes to find
# out who is due, and with the job that is being made, it stays under a second.
PASS_SECONDS = 0.4


@app.task(name=queue.RUN_JOB)
def run_job(job_id: str) -> None:
    """Run the most urgent job that waits for a worker; most often it is the one of the nudge.

    There is a nudge for each job, so that each is run, and those with the nearest deadline first.
    """
    from workers.run import run

    with transaction() as session:
        if not leases.is_known(session, UUID(job_id)):
            # Nudges follow commits. One that did not would be lost, were there no sweep.
            log.error("job.unknown", job=job_id)
        waiting = leases.queued(session, MOST_TRIED)
    # Another worker may be faster with one of them; then there is the next.
    any(run(id_) for id_ in waiting or [UUID(job_id)])


@app.task(name=queue.CHECK_MODEL)
def check_model(model_id: str) -> None:
    """Check one model, if it still waits for it."""
    from workers.check import check

    check(UUID(model_id))


@app.task(name=queue.MAKE_REFERENCE)
def make_reference(set_id: str) -> None:
    """Make one reference model of a set, and ask for the next: jobs may go between the two."""
    from workers.references import make_reference

    if make_reference(UUID(set_id)):
        queue.nudge(queue.MAKE_REFERENCE, UUID(set_id))


@app.task(name=queue.REFRESH_LEDGER)
def refresh_ledger(ledger_id: str | None = None) -> None:
    """Sum up the gradients of one version, and remove the sums of superseded ones."""
    from workers.ledgers import refresh, remove_void

    if ledger_id is not None:
        refresh(UUID(ledger_id))
    remove_void()


@app.task(name=queue.PURGE)
def purge() -> None:
    """Remove the weights of the versions whose time has come, and what was computed from them."""
    purging.purge_due(ArtifactStore(settings().artifacts_folder))


@app.task(name=queue.DELIVER)
def deliver() -> None:
    """Have due messages sent, and remove those from the log that it has kept for their time.

    Planning in this process does not wait for receivers.
    """
    try:
        senders.start()
    except DBAPIError as error:
        log.error("delivery.not_begun", error=type(error).__name__)
        return
    clearing.go_on(settings().delivery_log_kept)


@app.task(name=queue.PLAN)
def plan() -> None:
    """Make jobs of what is due, the nearest deadline first, and nudge a worker for each.

    A pass whose time is used up leaves the rest to another one, after one model at least.
    """
    ends_at = time.monotonic() + PASS_SECONDS
    try:
        with transaction() as session:
            models = planner.due(session)
    except DBAPIError as error:
        log.error("plan.failed", error=type(error).__name__)
        return
    planned = 0
    for model_id in models:
        # Not after failures alone: another pass would begin with the same ones.
        if planned and time.monotonic() >= ends_at:
            queue.nudge(queue.PLAN)
            return
        try:
            _plan_model(model_id)
            planned += 1
        except Exception as error:  # noqa: BLE001  # one model must not keep the others waiting
            log.error("plan.failed", model=str(model_id), error=type(error).__name__)
            if isinstance(error, OperationalError):
                return  # the database is away, for the others, too


def _plan_model(model_id: UUID) -> None:
    with transaction() as session:
        job_id = planner.plan_model(session, model_id)
        reach(CrashPoint.PLAN_BEFORE_COMMIT)
    if job_id is not None:
        reach(CrashPoint.PLAN_BEFORE_NUDGE)
        log.info("job.planned", job=str(job_id))
        queue.nudge(queue.RUN_JOB, job_id)


@app.task(name=queue.SWEEP)
def sweep() -> None:
    """Find what a crash or a lost nudge left behind: leases that ran out, rows nobody works on."""
    try:
        with transaction() as session:
            outcome.expire(session, retrying(), settings().job_time_limit)
            reach(CrashPoint.SWEEP_BEFORE_COMMIT)
        with transaction() as session:
            jobs = leases.queued(session)
            models = checking.unchecked(session)
            sets = leasing.waiting(session, ReferenceSet)
            sums = leasing.waiting(session, GradientLedger)
            void = ledger_files.void_files(session)
            purges = purging.due(session)
            overdue = reminder.due(session)
        with suppress(RolledBack):  # told by who signs; what is promised goes on
            place_all()
        reach(CrashPoint.SWEEP_BEFORE_NUDGE)
    except DBAPIError as error:
        log.error("sweep.failed", error=type(error).__name__)
        return
    if overdue:
        log.warning("notice.overdue", models=overdue)
    # With nudges still waiting, workers are busy or away; more of them would only pile up.
    if queue.depth(queue.JOBS_QUEUE) == 0:
        for model_id in models:
            queue.nudge(queue.CHECK_MODEL, model_id)
        for job_id in jobs:
            queue.nudge(queue.RUN_JOB, job_id)
        # Behind the jobs, since people wait for those.
        for set_id in sets:
            queue.nudge(queue.MAKE_REFERENCE, set_id)
        for ledger_id in sums:
            queue.nudge(queue.REFRESH_LEDGER, ledger_id)
        if void and not sums:
            queue.nudge(queue.REFRESH_LEDGER)
        if purges:
            queue.nudge(queue.PURGE)


@app.task(name=queue.SIGN_HEAD)
def sign_head() -> None:
    """Sign the log's head if there is anything new to sign, and tell the witnesses."""
    try:
        # Logged where it was found; what was signed before, a witness may still lack.
        with suppress(NotSigning):
            heads.refresh()
        witnesses.tell()
    except DBAPIError as error:
        log.error("head.failed", error=type(error).__name__)
