"""Stop a worker within seconds: its job goes back to the queue, and nothing of it is lost.

SIGTERM reaches Celery's main process, which then waits for its children to finish what they do;
a job may take hours. So the main process tells the children with SIGUSR2, and a child in the
midst of a method leaves it by an exception, gives its lease back and is done. A child that does
not, since some library call of hours keeps its interpreter busy, is killed after a grace period,
and the main process gives back what it held: by the row's fence that is safe at any instant.

Not SIGTERM for the children, too: that is how Celery stops a job that ran longer than it may, and
giving such a job back as if nothing had happened would begin the next hang.
"""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog
from billiard import active_children
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db import transaction
from app.jobs import outcome

log = structlog.get_logger()

# Leaves two of the ten seconds that orchestrators grant by default.
GRACE_SECONDS = 8.0
LOCK_SECONDS = 1
POLL_SECONDS = 0.05
SIGNAL = signal.SIGUSR2
# Children have their parent's. Two containers may share a host's name, and their process ids agree.
WORKER = secrets.token_hex(4)


class Stopping(BaseException):
    """The worker has been told to stop. No Exception, or a recipe's own handlers would catch it."""


@dataclass(slots=True)
class _Child:
    """What the signal finds in this process."""

    requested: bool = False
    interruptible: bool = False


_child = _Child()


def worker_name(pid: int | None = None) -> str:
    """Return the name under which a worker's process claims jobs."""
    return f"{socket.gethostname()}:{pid or os.getpid()}:{WORKER}"


def listen() -> None:
    """Take the order to stop, in a process that runs jobs."""
    signal.signal(SIGNAL, _interrupt)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the order to stop interrupt the block; elsewhere it waits for the next such block.

    Raises:
        Stopping: at whatever line the block is, or at once if the order came before.

    """
    _child.interruptible = True
    try:
        if _child.requested:
            raise Stopping
        yield
    finally:
        _child.interruptible = False


def stop_children(**_: Any) -> None:
    """Tell the children of this process to stop, and see to it that they do."""
    # A thread of its own: this is called within a signal handler of the main process.
    threading.Thread(target=_stop_children, name="stop-children", daemon=True).start()


def _stop_children() -> None:
    pids = [child.pid for child in active_children() if child.pid is not None]
    for pid in pids:
        _send(pid, SIGNAL)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)  # the interval of a poll; the condition is above
    for pid in filter(_lives, pids):
        release_all_of(worker_name(pid))
        _send(pid, signal.SIGKILL)


def release_all_of(worker: str) -> None:
    """Queue again what a process runs that is about to be killed, if the database answers soon."""
    try:
        with transaction() as session:
            # The process itself may hold its row, in a transaction that it does not come to end.
            session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            released = outcome.release_all_of(session, worker)
    except DBAPIError as error:
        # Its lease then runs out by itself.
        log.error("worker.not_released", worker=worker, error=type(error).__name__)
        return
    for job_id in released:
        log.warning("job.released", job=str(job_id), by="parent")


def _interrupt(_: int, __: FrameType | None) -> None:
    _child.requested = True
    if _child.interruptible:
        _child.interruptible = False  # once; what cleans up is left alone
        raise Stopping


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("worker.child_gone", pid=pid)


def _lives(pid: int) -> bool:
    return any(child.pid == pid and child.is_alive() for child in active_children())
