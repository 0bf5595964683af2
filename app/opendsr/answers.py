"""Every answer of the facade is signed, and every error is told in OpenDSR's words, too."""

import json
from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.errors import PROBLEM_TYPE_PREFIX, LetheError
from app.opendsr import signing
from app.opendsr.signing import DOMAIN_HEADER, PREFIX, SIGNATURE_HEADER

# What is wrong with a request is 400 there, whatever HTTP has besides; who may not ask, what is
# not found, and what is the service's own trouble keep the status that every client knows.
STATUSES = {409: 400, 422: 400}
UNPROCESSABLE = "422"

_HEADERS = {
    DOMAIN_HEADER: {"schema": {"type": "string"}, "example": "opendsr.example.com"},
    SIGNATURE_HEADER: {
        "schema": {"type": "string", "format": "byte"},
        "description": "Over the body as it was sent, by the key of `processor_certificate`.",
    },
}


class ErrorDetail(BaseModel):
    """One thing that is wrong."""

    domain: str = Field(
        description="With the reason, the type of the problem.",
        examples=[PROBLEM_TYPE_PREFIX.rstrip(":")],
    )
    reason: str = Field(examples=["invalid-request"])
    message: str = Field(examples=["/body/regulation: Field required"])


class ErrorObject(BaseModel):
    """An error as OpenDSR has it."""

    code: int = Field(examples=[400])
    message: str
    errors: list[ErrorDetail]


class OpenDsrProblem(problems.Problem):
    """An error in the form of RFC 9457, which is in OpenDSR's own form as well."""

    error: ErrorObject


class Answers:
    """ASGI middleware that finishes the facade's answers: with OpenDSR's error, and its signature.

    A signature is over a whole body, so that answers are held back until they are complete.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; leave alone what is no answer of the facade, or is finished."""
        if scope["type"] != "http" or not is_of_facade(scope["path"]):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def finished(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = _finish(start, b"".join(parts))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, finished)


def is_of_facade(path: str) -> bool:
    """Tell whether a path belongs to the facade."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def described(
    *kinds: type[LetheError], success: dict[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's answers."""
    # Ours, or FastAPI would describe its own; `describe` removes it.
    made: dict[int | str, dict[str, Any]] = {422: {"description": ""}}
    for status, answer in problems.responses(*kinds).items():
        target = STATUSES.get(int(status), int(status))
        known = made.setdefault(
            target,
            {
                "model": OpenDsrProblem,
                "description": answer["description"] if target == status else "Bad Request",
                "headers": _HEADERS,
                "content": {problems.MEDIA_TYPE: {"examples": {}}},
            },
        )
        for slug, example in answer["content"][problems.MEDIA_TYPE]["examples"].items():
            value = _told(example["value"])
            known["content"][problems.MEDIA_TYPE]["examples"][slug] = {"value": value}
    for code, answer in (success or {200: {}}).items():
        made[code] = {**answer, "headers": {**answer.get("headers", {}), **_HEADERS}}
    return made


def describe(app: FastAPI) -> None:
    """Make the description of the application say in which form the facade's errors leave."""
    complete = app.openapi

    def openapi() -> dict[str, Any]:
        document = complete()
        for path, operations in document["paths"].items():
            for operation in operations.values() if is_of_facade(path) else ():
                operation["responses"].pop(UNPROCESSABLE, None)
                for answer in operation["responses"].values():
                    _describe_error(answer.get("content", {}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _describe_error(content: dict[str, Any]) -> None:
    if problems.MEDIA_TYPE in content and "application/json" in content:
        # FastAPI knows one media type of a route, and it is not that of its errors.
        content[problems.MEDIA_TYPE] |= content.pop("application/json")


def _finish(start: MutableMapping[str, Any], body: bytes) -> bytes:
    headers = MutableHeaders(raw=list(start["headers"]))
    if headers.get("Content-Type") == problems.MEDIA_TYPE:
        problem = json.loads(body)
        if "error" not in problem:
            told = _told(problem)
            body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
            start["status"] = told["status"]
            headers["Content-Length"] = str(len(body))
    headers["Cache-Control"] = "no-store"
    known = signing.processor()
    if known is not None and SIGNATURE_HEADER not in headers:
        headers.update(known.headers(body))
    start["headers"] = headers.raw
    return body


def _told(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem with OpenDSR's error beside its own members."""
    status = STATUSES.get(problem["status"], problem["status"])
    reason = problem["type"].removeprefix(PROBLEM_TYPE_PREFIX)
    message = problem.get("detail", problem["title"])
    listed = [f"{each['pointer']}: {each['message']}" for each in problem.get("errors", [])]
    details = [
        {"domain": PROBLEM_TYPE_PREFIX.rstrip(":"), "reason": reason, "message": each}
        for each in listed or [message]
    ]
    error = {"code": status, "message": message, "errors": details}
    return {**problem, "status": status, "error": error}
