"""Every error leaves as RFC 9457 problem details; none of them quotes what a client sent."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from app import errors
from app.errors import PROBLEM_TYPE_PREFIX, LetheError

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

log = structlog.get_logger()


class FieldProblem(BaseModel):
    """One thing that is wrong, and where."""

    pointer: str = Field(examples=["/body/sample_ids"])
    message: str = Field(examples=["Input should be a valid list"])


class Problem(BaseModel):
    """An error in the form of RFC 9457."""

    type: str = Field(examples=[PROBLEM_TYPE_PREFIX + "invalid-request"])
    title: str = Field(examples=["The request is not valid"])
    status: int = Field(examples=[422])
    detail: str | None = Field(None, examples=["See errors."])
    errors: list[FieldProblem] | None = None


def responses(*kinds: type[LetheError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        example = _body(kind.status, kind.slug, kind.title, "What to do about it.")
        content = described.setdefault(
            kind.status,
            {
                "model": Problem,
                "description": HTTPStatus(kind.status).phrase,
                "content": {MEDIA_TYPE: {"examples": {}}},
            },
        )
        content["content"][MEDIA_TYPE]["examples"][kind.slug] = {"value": example}
    return described


def respond(
    status: int,
    slug: str,
    title: str,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    field_problems: list[dict[str, str]] | None = None,
) -> JSONResponse:
    """Return a problem as an answer."""
    body = _body(status, slug, title, detail)
    if field_problems is not None:
        body["errors"] = field_problems
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make the application answer every error as a problem."""
    app.add_exception_handler(LetheError, _known)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database_down)
    app.add_exception_handler(InterfaceError, _database_down)


def _body(status: int, slug: str, title: str, detail: str | None) -> dict[str, Any]:
    body = {"type": PROBLEM_TYPE_PREFIX + slug, "title": title, "status": status}
    return body if detail is None else {**body, "detail": detail}


def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, LetheError)  # noqa: S101  # the handler is registered for it
    return respond(error.status, error.slug, error.title, error.detail, headers=error.headers)


def _not_valid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it
    found = error.errors()
    if any(problem["type"] == "json_invalid" for problem in found):
        kind: type[LetheError] = errors.Malformed
        return respond(kind.status, kind.slug, kind.title, "The body is not JSON.")
    kind = errors.Invalid
    # Only the place and the rule: `input` and `ctx` would quote sample IDs back, and names of
    # unknown fields are the client's own words, too.
    listed = [
        {"pointer": _pointer(problem), "message": str(problem["msg"])} for problem in found[:100]
    ]
    return respond(kind.status, kind.slug, kind.title, "See errors.", field_problems=listed)


def _pointer(problem: Mapping[str, Any]) -> str:
    place = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        place = place[:-1]
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in place)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it
    phrase = HTTPStatus(error.status_code).phrase
    slug, detail = phrase.lower().replace(" ", "-"), "See /docs for what this service answers."
    if error.status_code == HTTPStatus.BAD_REQUEST:
        slug, phrase = errors.Malformed.slug, errors.Malformed.title
        detail = "The body cannot be read; send JSON in UTF-8."
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed(request))}
    return respond(error.status_code, slug, phrase, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path; the first route that has it knows its own alone."""
    routes: Sequence[BaseRoute] = request.app.routes
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


def _database_down(request: Request, error: Exception) -> Response:
    log.error("database.unavailable", error=type(error).__name__)
    return _known(request, errors.Unavailable("Nothing was stored. Send the same request again."))
