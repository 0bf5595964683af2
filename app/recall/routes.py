"""Recipients and notices over HTTP."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from pydantic import AfterValidator

from app.db import transaction
from app.errors import AddressRefused, Conflict, InvalidCursor, NotFound
from app.problems import responses
from app.recall import notices, schemas, service
from app.recall.notices import NOTICES
from app.security import Deployer, NoticeReader
from app.wire import COMMON, WITH_BODY, Cursor, Limit, Name

RECIPIENTS = "/v1/models/{name}/recipients"
# Before the first notice; much longer ones would lie before the calendar.
LONGEST_AGE = timedelta(days=36_500)

router = APIRouter(tags=["recall"])

Age = Annotated[
    timedelta | None,
    Query(ge=timedelta(0), description="Made longer ago: ISO 8601, or seconds."),
    AfterValidator(lambda age: age and min(age, LONGEST_AGE)),
]


@router.post(
    RECIPIENTS,
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {
            "description": "Told of every withdrawal from now on.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(*WITH_BODY, NotFound, Conflict, AddressRefused),
    },
)
def register(
    name: Name, body: schemas.NewRecipient, _: Deployer, response: Response
) -> schemas.RegisteredRecipient:
    """Register somebody who runs the model: told of later withdrawals, not of earlier ones."""
    with transaction() as session:
        row = service.register(session, name, body.name, body.url)
    response.headers["Location"] = f"{RECIPIENTS.format(name=name)}/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return schemas.describe_registered(row, name)


@router.get(RECIPIENTS, responses=responses(*COMMON, NotFound, InvalidCursor))
def browse(
    name: Name, _: NoticeReader, removed: bool = False, cursor: Cursor = None, limit: Limit = 50
) -> schemas.RecipientPage:
    """List a model's recipients, newest first; with `removed`, those of former times, too."""
    with transaction() as session:
        page = service.browse(session, name, cursor, limit, removed=removed)
        views = service.views(session, page.rows)
    return schemas.RecipientPage(
        items=[schemas.describe_recipient(view) for view in views], next_cursor=page.next_cursor
    )


@router.get(RECIPIENTS + "/{recipient_id}", responses=responses(*COMMON, NotFound))
def get(name: Name, recipient_id: UUID, _: NoticeReader) -> schemas.RecipientAnswer:
    """Return one recipient, also one that was removed."""
    with transaction() as session:
        (view,) = service.views(session, [service.find(session, name, recipient_id)])
    return schemas.describe_recipient(view)


@router.delete(
    RECIPIENTS + "/{recipient_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(*COMMON, NotFound),
)
def remove(name: Name, recipient_id: UUID, _: Deployer) -> None:
    """Tell a recipient of no further withdrawals. Its notices stay, and stay open."""
    with transaction() as session:
        service.remove(session, name, recipient_id)


@router.get(
    RECIPIENTS + "/{recipient_id}/notices", responses=responses(*COMMON, NotFound, InvalidCursor)
)
def browse_of_recipient(
    name: Name,
    recipient_id: UUID,
    _: NoticeReader,
    acknowledged: bool | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.NoticePage:
    """List the notices of one recipient, newest first."""
    with transaction() as session:
        recipient = service.find(session, name, recipient_id)
        page = service.browse_notices(
            session, cursor, limit, recipient_id=recipient.id, acknowledged=acknowledged
        )
        views = service.notice_views(session, page.rows)
        (owed,) = service.views(session, [recipient])
    return schemas.NoticePage(
        items=[schemas.describe_notice(view) for view in views],
        overdue=owed.overdue,
        next_cursor=page.next_cursor,
    )


@router.get(NOTICES, responses=responses(*COMMON, InvalidCursor))
def browse_notices(
    _: NoticeReader,
    acknowledged: bool | None = None,
    older_than: Age = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.NoticePage:
    """List notices, newest first; with `acknowledged=false`, those that nobody answered yet."""
    with transaction() as session:
        page = service.browse_notices(
            session, cursor, limit, acknowledged=acknowledged, older_than=older_than
        )
        views = service.notice_views(session, page.rows)
        overdue = sum(notices.count_overdue(session).values())
    return schemas.NoticePage(
        items=[schemas.describe_notice(view) for view in views],
        overdue=overdue,
        next_cursor=page.next_cursor,
    )


@router.get(NOTICES + "/{notice_id}", responses=responses(*COMMON, NotFound))
def get_notice(notice_id: UUID, _: NoticeReader) -> schemas.NoticeAnswer:
    """Return one notice."""
    with transaction() as session:
        (view,) = service.notice_views(session, [service.find_notice(session, notice_id)])
    return schemas.describe_notice(view)


@router.post(NOTICES + "/{notice_id}/acknowledgement", responses=responses(*WITH_BODY, NotFound))
def acknowledge(
    notice_id: UUID, body: schemas.Acknowledgement, _: Deployer
) -> schemas.NoticeAnswer:
    """Acknowledge a withdrawal. Once is enough: who did so first is kept."""
    with transaction() as session:
        row = service.acknowledge(session, notice_id, body.by)
        (view,) = service.notice_views(session, [row])
    return schemas.describe_notice(view)
