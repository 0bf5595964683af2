"""Nudge the workers. The rows are the truth; a nudge that is lost costs one planning interval."""

from functools import cache
from uuid import UUID

import structlog
from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from app.settings import settings

log = structlog.get_logger()

# Names and queues of the tasks; the worker declares the same, so that the API imports no worker.
RUN_JOB = "lethe.run_job"
CHECK_MODEL = "lethe.check_model"
MAKE_REFERENCE = "lethe.make_reference"
REFRESH_LEDGER = "lethe.refresh_ledger"
PURGE = "lethe.purge"
PLAN = "lethe.plan"
SWEEP = "lethe.sweep"
DELIVER = "lethe.deliver"
SIGN_HEAD = "lethe.sign_head"
JOBS_QUEUE = "jobs"
CONTROL_QUEUE = "control"
QUEUES = {
    RUN_JOB: JOBS_QUEUE,
    CHECK_MODEL: JOBS_QUEUE,
    MAKE_REFERENCE: JOBS_QUEUE,
    REFRESH_LEDGER: JOBS_QUEUE,
    PURGE: JOBS_QUEUE,
    PLAN: CONTROL_QUEUE,
    SWEEP: CONTROL_QUEUE,
    DELIVER: CONTROL_QUEUE,
    SIGN_HEAD: CONTROL_QUEUE,
}

# Seconds that a nudge may take: it comes after the commit and must not hold up an answer.
PATIENCE_SECONDS = 1


@cache
def _producer() -> Celery:
    celery = Celery("lethe", broker=settings().broker_url.get_secret_value(), set_as_current=False)
    celery.conf.update(
        task_serializer="json",
        task_ignore_result=True,
        broker_connection_timeout=PATIENCE_SECONDS,
        broker_transport_options={
            # One try: the caller has an answer to give, and the scheduler finds the row.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
            "connect_retries_timeout": PATIENCE_SECONDS,
            "socket_connect_timeout": PATIENCE_SECONDS,
            "socket_timeout": PATIENCE_SECONDS,
        },
    )
    return celery


def nudge(task: str, row_id: UUID | None = None) -> bool:
    """Ask a worker to look at a row, after the transaction that made the row has committed.

    Returns whether the broker took it. False is no error: the scheduler finds the row.
    """
    try:
        _producer().send_task(
            task,
            args=[] if row_id is None else [str(row_id)],
            queue=QUEUES[task],
            retry=False,
            ignore_result=True,
            # Nobody needs the plans of yesterday when the scheduler comes back.
            expires=settings().plan_interval.total_seconds() if row_id is None else None,
        )
    except (OperationalError, RedisError, OSError) as error:
        # Only the type: a connection error quotes the URL, which holds a password.
        log.warning("nudge.lost", task=task, row=row_id and str(row_id), error=type(error).__name__)
        return False
    return True


def depth(queue: str) -> int | None:
    """Return how many nudges wait in a queue; None if the broker does not answer."""
    try:
        with _producer().connection_for_write() as connection:
            declared = Queue(queue, channel=connection.default_channel).queue_declare(passive=True)
            return int(declared.message_count)  # type: ignore[union-attr]  # wrong in the stubs
    except ChannelError:
        return 0  # Redis forgets a queue when it is empty
    except (OperationalError, RedisError, OSError):
        return None


def ping() -> bool:
    """Tell whether the broker answers."""
    try:
        with _producer().connection_for_write() as connection:
            return connection.default_channel is not None
    except (OperationalError, RedisError, OSError):
        return False
