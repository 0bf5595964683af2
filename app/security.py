"""Who is calling, and what they may do. Closed by default: all but the open paths needs a key.

Each route names the scopes that open it, through one of the types at this module's end.
"""

import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from app import problems
from app.errors import Forbidden, Unauthorized
from app.settings import settings

# Public keys are for everybody, above all for those who trust nobody here.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", "/v1/keys"})

_bearer = HTTPBearer(auto_error=False, description="The key of the setting LETHE_API_KEY.")


class Scope(StrEnum):
    """What a client may be allowed to do."""

    SUBMIT = "erasure:submit"
    READ = "erasure:read"
    DECIDE = "erasure:decide"
    MODELS = "models:write"
    AUDIT = "audit:read"
    OPS = "ops"


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller. Requests belong to its name, which several keys may share."""

    name: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Caller:
    """A client whom a route let in."""

    name: str
    only_of: str | None
    """The client whose requests it may see here; None for everybody's."""


class Closed:
    """ASGI middleware that lets nobody without the key past, before a body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        """Take the bearer key."""
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
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
        return (
            Client("operator", frozenset(Scope)) if right and scheme.lower() == "bearer" else None
        )


def authenticate(request: Request, _: Annotated[object, Depends(_bearer)]) -> Client:
    """Return the client whom the middleware let in; the dependency documents the scheme.

    Raises:
        Unauthorized: nobody did, so that a route stays closed even without the middleware.

    """
    client = getattr(request.state, "client", None)
    if not isinstance(client, Client):
        raise Unauthorized("Send the header `Authorization: Bearer KEY`.")
    return client


def permit(*wide: Scope, own: Collection[Scope] = ()) -> Callable[[Client], Caller]:
    """Return a dependency that lets in whoever has one of the scopes.

    Args:
        wide: let a client see what belongs to anybody.
        own: let it see what belongs to itself.

    """

    def check(client: Annotated[Client, Depends(authenticate)]) -> Caller:
        if client.scopes.intersection(wide):
            return Caller(client.name, None)
        if client.scopes.intersection(own):
            return Caller(client.name, client.name)
        named = " or ".join(f"`{scope}`" for scope in (*own, *wide))
        raise Forbidden(f"This needs a key with the scope {named}.")

    return check


Submitter = Annotated[Caller, Depends(permit(own=[Scope.SUBMIT]))]
Withdrawer = Annotated[Caller, Depends(permit(Scope.DECIDE, own=[Scope.SUBMIT]))]
Reader = Annotated[Caller, Depends(permit(Scope.DECIDE, Scope.AUDIT, Scope.OPS, own=[Scope.READ]))]
Decider = Annotated[Caller, Depends(permit(Scope.DECIDE))]
Restarter = Annotated[Caller, Depends(permit(Scope.DECIDE, Scope.OPS))]
JobReader = Annotated[Caller, Depends(permit(Scope.DECIDE, Scope.MODELS, Scope.AUDIT, Scope.OPS))]
ModelReader = Annotated[Caller, Depends(permit(*Scope))]
ModelWriter = Annotated[Caller, Depends(permit(Scope.MODELS))]
Deployer = Annotated[Caller, Depends(permit(Scope.MODELS, Scope.OPS))]
NoticeReader = Annotated[Caller, Depends(permit(Scope.MODELS, Scope.AUDIT, Scope.OPS))]
Auditor = Annotated[Caller, Depends(permit(Scope.AUDIT))]
Operator = Annotated[Caller, Depends(permit(Scope.OPS))]


def api_key() -> str:
    """Return the key that this API process was given."""
    return settings().required_api_key()
