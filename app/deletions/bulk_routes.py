"""Many deletion requests in one call over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, StringConstraints

from app.deletions.bulk import Origin
from app.deletions.bulk_schemas import (
    LineRefused,
    LineTaken,
    NewDeletionRequestLine,
    StreamBroken,
    StreamTaken,
)
from app.deletions.bulk_stream import MEDIA_TYPE, BulkStream, Places
from app.errors import Malformed, TooManyStreams
from app.problems import responses
from app.security import Submitter
from app.settings import settings
from app.wire import COMMON

PATH = "/v1/deletion-requests:bulk"
# Each may hold some 60 MiB while lines are as long as they can be.
MOST_STREAMS = 8

router = APIRouter(tags=["deletion requests"])

StreamKey = Annotated[
    str,
    Header(
        description="A key of your own making for the whole stream. Sent again with the same key, "
        "lines that were stored before are answered as `repeated`.",
        examples=["backlog-2026-11-21"],
    ),
    StringConstraints(min_length=1, max_length=255),
]
FirstLine = Annotated[
    int,
    Query(
        ge=1,
        le=2**31,
        description="The number of the first line that is sent, for a client that leaves out those "
        "that it has answers for.",
    ),
]


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    # What it refers to is part of the description already.
    schema = model.model_json_schema(
        ref_template="#/components/schemas/{model}", mode="serialization"
    )
    return {name: value for name, value in schema.items() if name != "$defs"}


_EXAMPLE = """\
{"line":1,"status":202,"id":"6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11","repeated":false}
{"lines":1,"accepted":1,"repeated":0,"refused":0}
"""
_BODY = {
    # None at all are no lines, as at the end of an import that was cut at its last line.
    "required": False,
    "description": "One JSON object a line, each line as long as the body of a single request may "
    "be; the last line may end without LF.",
    "content": {MEDIA_TYPE: {"schema": _schema(NewDeletionRequestLine)}},
}
_ANSWER = {
    "description": "One JSON object for each line, in their order, each after what it tells of was "
    "committed; then one that counts them, or a `problem` without a `line` when the stream was "
    "given up. An answer without either is not whole.",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "oneOf": [
                    _schema(model) for model in (LineTaken, LineRefused, StreamTaken, StreamBroken)
                ]
            },
            "examples": {"accepted": {"value": _EXAMPLE}},
        }
    },
}


@router.post(
    PATH,
    response_class=Response,
    responses={200: _ANSWER, **responses(*COMMON, Malformed, TooManyStreams)},
    openapi_extra={"requestBody": _BODY},
)
async def submit_many(
    request: Request, caller: Submitter, idempotency_key: StreamKey, first_line: FirstLine = 1
) -> Response:
    """Ask for many deletions in one call: one request a line, each stored or refused by itself.

    Lines are taken in while they arrive, and answered as they are stored. After a connection that
    broke, send the same lines with the same key: nothing is stored twice.
    """
    chosen = settings()
    places: Places = request.app.state.bulk_places
    return BulkStream(
        Origin(caller.name, idempotency_key, chosen.required_id_key()),
        first_line,
        line_limit=chosen.json_body_limit,
        patience=chosen.bulk_patience.total_seconds(),
        folder=chosen.artifacts_folder,
        closed=places.take(),
    )
