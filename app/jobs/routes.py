"""Jobs over HTTP."""

from uuid import UUID

from fastapi import APIRouter, Response

from app.db import transaction
from app.errors import InvalidCursor, NotFound
from app.jobs import schemas, service
from app.problems import responses
from app.security import Caller
from app.statuses import JobStatus
from app.wire import COMMON, Cursor, Limit, retry_after

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=responses(*COMMON))


@router.get("", responses=responses(InvalidCursor))
def browse(
    _: Caller,
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
def get(job_id: UUID, _: Caller, response: Response) -> schemas.JobAnswer:
    """Say how far a job is and what its methods achieved."""
    with transaction() as session:
        answer = schemas.describe(service.get(session, job_id))
    if answer.finished_at is None:
        response.headers.update(retry_after())
    return answer
