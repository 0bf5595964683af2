"""Who is calling. Closed by default: every path needs the key but those that are named open."""

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems
from app.errors import Unauthorized
from app.settings import settings

# Public keys are for everybody, above all for those who trust nobody here.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", "/v1/keys"})

_bearer = HTTPBearer(auto_error=False, description="The key of the setting LETHE_API_KEY.")


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller."""

    name: str


class Closed:
    """ASGI middleware that lets nobody without the key past, before a body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        """Take the bearer key."""
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note who calls and pass the request on, or answer 401."""
        if scope["type"] == "http":
            client = self._identify(Headers(scope=scope).get("authorization", ""))
            if client is None and scope["path"] not in OPEN_PATHS:
                kind = Unauthorized
                answer = problems.respond(
                    kind.status,
                    kind.slug,
                    kind.title,
                    "Send the header `Authorization: Bearer KEY`.",
                    headers=kind.headers,
                )
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["client"] = client
        await self._app(scope, receive, send)

    def _identify(self, authorization: str) -> Client | None:
        scheme, _, given = authorization.partition(" ")
        # In constant time, so that a wrong key does not tell how far it is right.
        right = hmac.compare_digest(given.strip().encode(), self._key)
        return Client("operator") if right and scheme.lower() == "bearer" else None


def authenticate(request: Request, _: Annotated[object, Depends(_bearer)]) -> Client:
    """Return the caller whom the middleware let in; the dependency documents the scheme.

    Raises:
        Unauthorized: nobody did, so that a route stays closed even without the middleware.

    """
    client = getattr(request.state, "client", None)
    if not isinstance(client, Client):
        raise Unauthorized("Send the header `Authorization: Bearer KEY`.")
    return client


Caller = Annotated[Client, Depends(authenticate)]


def api_key() -> str:
    """Return the key that this API process was given."""
    return settings().required_api_key()
