"""Four bugs of the product, each its own function with a single defect.

Imported by ``sitecustomize`` in the processes of a run that asks for one. Nothing of the product is
imported before the module that is changed, or its own imports would miss the change.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

# Armed like a crash point of the product, between the two halves of a publication.
BETWEEN = "publish.between"


def replace(module: Any, name: str, function: Any) -> Any:
    """Put a faulty function in the place of one; return that one.

    Raises:
        AttributeError: there is none, so that the fault would do nothing.

    """
    replaced = getattr(module, name)
    setattr(module, name, function)
    return replaced


def remove_fencing(leases: ModuleType) -> None:
    """A claim holds its job as long as anybody runs it."""
    from app.statuses import JobStatus
    from app.tables import UnlearningJob

    replace(leases, "held_by", lambda _: (UnlearningJob.status == JobStatus.RUNNING,))


def split_publish(run: ModuleType) -> None:
    """The version is published in one transaction, and its erasures completed in another."""
    from app import crash_points, lifecycle
    from app.db import transaction
    from app.deletions.settlement import settle
    from app.jobs import publication

    completed: dict[str, Any] = {}

    def postpone(session: Any, table: Any, ids: Any, to: Any, **more: Any) -> list[Any]:
        completed.update(table=table, ids=ids, to=to, **more)
        return []

    def publish(*arguments: Any) -> None:
        in_one(*arguments)
        crash_points.reach(BETWEEN)  # type: ignore[arg-type]  # a point of the fault's own
        with transaction() as session:
            moved = lifecycle.move(session, **completed)
            settle(session, [erasure.request_id for erasure in moved])

    in_one = replace(run, "_publish", publish)
    moves = SimpleNamespace(begin=lifecycle.begin, move_one=lifecycle.move_one, move=postpone)
    replace(publication, "lifecycle", moves)


def nudge_before_commit(planner: ModuleType) -> None:
    """The planner sends its nudge while its job can still be rolled back."""
    from app import queue

    def plan_and_nudge(session: Any, model_id: Any) -> Any:
        job_id = plan(session, model_id)
        if job_id is not None:
            queue.nudge(queue.RUN_JOB, job_id)
        return job_id

    plan = replace(planner, "plan_model", plan_and_nudge)


def remove_heartbeat(heartbeat: ModuleType) -> None:
    """A lease is taken and never renewed."""
    replace(heartbeat.Heartbeat, "_beat", lambda self: self._ended.wait())


FAULTS = {
    "no_fence": ("app.jobs.leases", remove_fencing),
    "split_publish": ("workers.run", split_publish),
    "nudge_before_commit": ("app.deletions.planner", nudge_before_commit),
    "no_heartbeat": ("workers.heartbeat", remove_heartbeat),
}
