"""Access keys over HTTP."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response, status

from app.access_keys import schemas, service
from app.db import now, transaction
from app.errors import Forbidden, InvalidCursor, NotFound
from app.problems import responses
from app.scopes import Client
from app.security import Operator, authenticate
from app.wire import COMMON, WITH_BODY, Cursor, Limit

router = APIRouter(prefix="/v1/access-keys", tags=["access keys"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {
            "description": "Opens what it says from now on.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(*WITH_BODY),
    },
)
def create(
    body: schemas.NewAccessKey,
    caller: Operator,
    client: Annotated[Client, Depends(authenticate)],
    response: Response,
) -> schemas.CreatedAccessKey:
    """Make a key for a client, with no more scopes than the caller has. It is shown this once."""
    if not client.scopes.issuperset(body.scopes):
        # Or `ops` alone would be every scope at one remove.
        raise Forbidden("A key can be given only scopes that the caller has.")
    expires_at = None if body.valid_days is None else now() + timedelta(days=body.valid_days)
    with transaction() as session:
        row, text = service.create(session, body.name, body.scopes, expires_at, caller.name)
    response.headers["Location"] = f"{router.prefix}/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return schemas.describe_created(row, text)


@router.get("", responses=responses(*COMMON, InvalidCursor))
def browse(_: Operator, cursor: Cursor = None, limit: Limit = 50) -> schemas.AccessKeyPage:
    """List keys, newest first, also those that expired or were revoked."""
    with transaction() as session:
        page = service.browse(session, cursor, limit)
    return schemas.AccessKeyPage(
        items=[schemas.describe(row) for row in page.rows], next_cursor=page.next_cursor
    )


@router.get("/{key_id}", responses=responses(*COMMON, NotFound))
def get(key_id: UUID, _: Operator) -> schemas.AccessKeyAnswer:
    """Return one key, without its secret, which nobody has but its client."""
    with transaction() as session:
        return schemas.describe(service.get(session, key_id))


@router.delete(
    "/{key_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=responses(*COMMON, NotFound),
)
def revoke(key_id: UUID, caller: Operator) -> None:
    """Revoke a key for good: within seconds, it opens nothing. Once more changes nothing."""
    with transaction() as session:
        service.revoke(session, key_id, caller.name)
