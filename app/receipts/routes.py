"""Receipts over HTTP."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from app.errors import Conflict, NotFound, NotSigning, RolledBack
from app.problems import responses
from app.receipts import service
from app.security import Reader
from app.wire import COMMON

router = APIRouter(prefix="/v1/deletion-requests", tags=["deletion requests"])

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/json": {"schema": {"type": "object"}}},
        "description": "The receipt, for `lethe verify`: an in-toto statement in a DSSE envelope, "
        "log entries with their proofs, a signed tree head, and proofs of what was removed.",
    }
}


@router.get(
    "/{request_id}/receipt",
    response_class=Response,
    responses={**_FILE, **responses(*COMMON, NotFound, Conflict, NotSigning, RolledBack)},
)
def receipt(request_id: UUID, caller: Reader) -> Response:
    """Return a finished request's receipt, which can be checked without this service."""
    return Response(
        service.issue(request_id, caller.only_of),
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="receipt-{request_id}.json"',
            "Cache-Control": "private, no-cache",
        },
    )
