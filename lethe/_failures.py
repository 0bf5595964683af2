"""What a client's call can end in, other than what it asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lethe._answers import DeletionRequest


class ClientError(Exception):
    """The service did not do what it was asked for."""


class Unreachable(ClientError):
    """No answer came, or none but that it cannot answer now, for as long as was to be waited.

    A request that was being submitted may be stored. Submit it again with the same key, which is in
    `idempotency_key`: it is not stored twice.
    """

    def __init__(self, why: str, idempotency_key: str | None = None) -> None:
        """Keep the kind of the failure; never what was sent."""
        super().__init__(why)
        self.idempotency_key = idempotency_key


class NotFinished(ClientError):
    """A request was not finished in time; it goes on, and can be waited for again."""

    def __init__(self, request: DeletionRequest) -> None:
        """Keep where the request stands."""
        super().__init__(f"The request {request.id} is {request.status}.")
        self.request = request


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong with what was sent, and where."""

    pointer: str
    message: str


class Refused(ClientError):
    """The service refused: a problem of RFC 9457; see docs/problems.md for its types."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take the answer's status and its body."""
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail") or "")
        self.errors = [
            FieldProblem(str(one.get("pointer")), str(one.get("message")))
            for one in problem.get("errors") or []
        ]
        super().__init__(f"{status} {self.type.removeprefix('urn:lethe:problem:')}: {self.detail}")


def refusal(status: int, body: bytes) -> Refused:
    """Return what an answer refuses, whatever stands in its body."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    return Refused(status, problem if isinstance(problem, dict) else {})
