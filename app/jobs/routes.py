"""Jobs over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app import conditional, queue
from app.conditional import IfNoneMatch
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.deletions import retrying
from app.errors import Conflict, InvalidCursor, NotFound
from app.jobs import schemas, service
from app.problems import responses
from app.security import JobReader, Restarter
from app.statuses import JobStatus
from app.wire import COMMON, Cursor, Limit, Moment, Name, accepted, retry_after

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=responses(*COMMON))


Statuses = Annotated[
    list[JobStatus] | None,
    Query(max_length=len(JobStatus), description="Any of these; may be repeated."),
]
CreatedFrom = Annotated[Moment | None, Query(description="At this moment or later.")]
CreatedTo = Annotated[Moment | None, Query(description="Before this moment.")]


@router.get("", responses=responses(InvalidCursor))
def browse(
    _: JobReader,
    status: Statuses = None,
    model: Name | None = None,
    created_from: CreatedFrom = None,
    created_to: CreatedTo = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.JobPage:
    """List jobs, newest first."""
    wanted = service.Filter(tuple(status or ()), model, created_from, created_to)
    with transaction() as session:
        page = service.browse(session, wanted, cursor, limit)
        found = service.views(session, page.rows)
    return schemas.JobPage(
        items=[schemas.describe(view) for view in found], next_cursor=page.next_cursor
    )


@router.get(
    "/{job_id}",
    response_model=schemas.JobAnswer,
    responses={**conditional.described(), **responses(NotFound)},
)
def get(job_id: UUID, _: JobReader, known: IfNoneMatch) -> Response:
    """Say how far a job is and what its methods achieved."""
    with transaction() as session:
        answer = schemas.describe(service.get(session, job_id))
    return known.answer(answer, retry_after() if answer.finished_at is None else None)


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
