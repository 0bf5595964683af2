"""Jobs over HTTP."""

from uuid import UUID

from fastapi import APIRouter, Response, status

from app import queue
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions import retrying
from app.errors import Conflict, InvalidCursor, NotFound
from app.jobs import schemas, service
from app.problems import responses
from app.security import JobReader, Restarter
from app.statuses import JobStatus
from app.wire import COMMON, Cursor, Limit, accepted, retry_after

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=responses(*COMMON))


@router.get("", responses=responses(InvalidCursor))
def browse(
    _: JobReader,
    status: JobStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.JobPage:
    """List jobs, newest first."""
    with transaction() as session:
        page = service.browse(session, status, cursor, limit)
        found = service.views(session, page.rows)
    return schemas.JobPage(
        items=[schemas.describe(view) for view in found], next_cursor=page.next_cursor
    )


@router.get("/{job_id}", responses=responses(NotFound))
def get(job_id: UUID, _: JobReader, response: Response) -> schemas.JobAnswer:
    """Say how far a job is and what its methods achieved."""
    with transaction() as session:
        answer = schemas.describe(service.get(session, job_id))
    if answer.finished_at is None:
        response.headers.update(retry_after())
    return answer


@router.post(
    "/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        **accepted("/v1/jobs/3d0c4b52-7f43-4b0e-8d3a-0a2f7c1f9e55"),
        **responses(NotFound, Conflict),
    },
)
def retry(job_id: UUID, caller: Restarter, response: Response) -> schemas.JobAnswer:
    """Try again, in a new job, what this one left in need of attention."""
    with transaction() as session:
        retrying.retry_job(session, job_id, caller.name)
        answer = schemas.describe(service.get(session, job_id))
    reach(CrashPoint.RETRY_AFTER_COMMIT)
    queue.nudge(queue.PLAN)
    response.headers["Location"] = f"{router.prefix}/{job_id}"
    response.headers.update(retry_after())
    return answer
