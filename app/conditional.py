"""Answer 304 to a client that has a representation already (RFC 9110, 13.1.2)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response, status

from app.wire import Answer

# RFC 9110, 8.8.3: the text between the quotes may hold commas, so that splitting there is wrong.
_TAG = re.compile(r'"([\x21\x23-\x7e\x80-\xff]*)"')

# Shown to its caller alone, and never without asking whether it is still so.
_CACHING = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}

_TEXT = {"schema": {"type": "string"}}
_ETAG = {
    **_TEXT,
    "required": True,
    "description": "Names this very representation.",
    "example": '"5e0c41d09a2b7f6388d1c2e4a9b07f13"',
}
_HEADERS: Mapping[str, Mapping[str, Any]] = {
    "ETag": _ETAG,
    "Cache-Control": {**_TEXT, "required": True, "example": _CACHING["Cache-Control"]},
    "Vary": {**_TEXT, "required": True, "example": _CACHING["Vary"]},
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds until a change is expected, while one is.",
        "example": 5,
    },
}


@dataclass(frozen=True, slots=True)
class Known:
    """What a client has of a resource, by the tags that it sent."""

    tags: frozenset[str]
    anything: bool = False

    def answer(self, body: Answer, headers: Mapping[str, str] | None = None) -> Response:
        """Return the representation, or 304 if the client has just that."""
        content = body.model_dump_json(by_alias=True).encode()
        tag = tag_of(content)
        sent = {"ETag": f'"{tag}"', **_CACHING, **(headers or {})}
        if self.anything or tag in self.tags:
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=sent)
        return Response(content, headers=sent, media_type="application/json")


def tag_of(content: bytes) -> str:
    """Return the tag of a representation: equal for equal bytes alone, so it is a strong one."""
    # 128 bits are plenty: nobody gains by a collision within their own answers.
    return hashlib.sha256(content).hexdigest()[:32]


async def known(
    request: Request,
    if_none_match: Annotated[
        str | None,
        Header(
            max_length=2_000,
            description="`ETag` of what you have; 304 if it is so still.",
            examples=[_ETAG["example"]],
        ),
    ] = None,
) -> Known:
    """Return what the client has; what is no tag counts for none."""
    if if_none_match is None:
        return Known(frozenset())
    # A list may come in several lines, of which the parameter is the first.
    lines = request.headers.getlist("if-none-match")
    if any(line.strip() == "*" for line in lines):
        return Known(frozenset(), anything=True)
    # Weak comparison: a prefix W/ does not count.
    return Known(frozenset(tag for line in lines for tag in _TAG.findall(line)))


def described() -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of what a conditional GET adds to a route."""
    return {
        200: {"headers": dict(_HEADERS)},
        304: {"description": "What you have is current.", "headers": dict(_HEADERS)},
    }


IfNoneMatch = Annotated[Known, Depends(known)]
