"""Celery's settings, each with its reason. Rows are the truth; messages are nudges."""

from collections.abc import Mapping
from typing import Any

import stamina
from celery import Celery
from celery.signals import celeryd_init, setup_logging, worker_process_init, worker_shutting_down

from app import keys, logs, queue
from app.settings import settings
from workers import reconnecting, stopping


def _rhythm() -> dict[str, float]:
    interval = settings().plan_interval.total_seconds()
    # Twice as often, so that what a lost nudge left behind waits for one interval at most, the way
    # back to a broker that was away included.
    return {
        queue.PLAN: interval,
        queue.SWEEP: interval / 2,
        queue.DELIVER: interval,
        queue.SIGN_HEAD: settings().head_interval.total_seconds(),
    }


def _create() -> Celery:
    celery = Celery(
        "lethe", broker=settings().broker_url.get_secret_value(), amqp=reconnecting.Messages
    )
    celery.conf.update(
        imports=("workers.tasks",),
        # Results live in PostgreSQL; without a backend Celery keeps nothing.
        result_backend=None,
        task_ignore_result=True,
        # JSON alone: a message can carry ids, and no code.
        accept_content=["json"],
        task_serializer="json",
        # Acknowledged when taken, not when done: Redis delivers an unacknowledged message again
        # after an hour, and would run a long job twice. Leases bring back what a worker lost.
        task_acks_late=False,
        # One message at a time: a job waits in the queue, not in the pocket of a busy worker.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_routes={task: {"queue": name} for task, name in queue.QUEUES.items()},
        task_create_missing_queues=True,
        # A job that hangs is killed by its worker's parent process; its lease then runs out.
        task_time_limit=settings().job_time_limit.total_seconds(),
        # A broker that is away is waited for, at the start and later.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A dead connection to Redis looks like an idle one until somebody asks.
        broker_transport_options={
            "socket_keepalive": True,
            "health_check_interval": 10,
            "socket_connect_timeout": 5,
        },
        # A job that lost the broker is still a job: it publishes to PostgreSQL.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Nobody looks at these; each costs messages.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        # Each process runs one kind of command; gossip between workers serves none of them.
        worker_hijack_root_logger=False,
        timezone="UTC",
        beat_schedule={
            task: {
                "task": task,
                "schedule": seconds,
                # A scheduler that was stopped does not catch up on what it missed.
                "options": {"expires": seconds},
            }
            for task, seconds in _rhythm().items()
        },
    )
    return celery


@celeryd_init.connect
def _refuse_to_start_without_keys(options: Mapping[str, Any], **_: Any) -> None:
    needed = {queue.CONTROL_QUEUE: keys.log_key, queue.JOBS_QUEUE: keys.weights_key}
    served = options.get("queues") or list(needed)
    try:
        for name in needed.keys() & set(served):
            needed[name]()
    except keys.KeyRefused as error:
        # Of another exception Celery would make a line in the log, and start.
        raise SystemExit(f"error: {error}") from None


@setup_logging.connect
def _log_as_the_api_does(**_: Any) -> None:
    logs.set_up()


@worker_process_init.connect
def _set_up_children(**_: Any) -> None:
    logs.set_up()
    # What a database error says is not for the log.
    stamina.instrumentation.set_on_retry_hooks([])
    stopping.listen()


@worker_shutting_down.connect
def _stop_children(**_: Any) -> None:
    stopping.stop_children()


app = _create()
