"""What callers may do. Closed by default: all but the open paths needs a credential.

Each route names the scopes that open it, through one of the types at this module's end. They are
asynchronous and wait for nothing: any other dependency takes a thread for each request.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app.errors import Forbidden, Unauthorized
from app.scopes import Client, Scope

# Public keys are for everybody, above all for those who trust nobody here.
OPEN_PATHS = frozenset(
    {
        *("/healthz", "/readyz", "/docs", "/openapi.json", "/v1/keys"),
        *(f"/opendsr/2.0/{name}" for name in ("certificate", "discovery", "status")),
    }
)

_bearer = HTTPBearer(
    auto_error=False,
    description="An access key (`lethe_…`), a token of the configured issuer, or the operator's "
    "key.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A client whom a route let in."""

    name: str
    only_of: str | None
    """The client whose requests it may see here; None for everybody's."""


async def authenticate(request: Request, _: Annotated[object, Depends(_bearer)]) -> Client:
    """Return the client whom the middleware let in; the dependency documents the scheme.

    Raises:
        Unauthorized: nobody did, so that a route stays closed even without the middleware.

    """
    client = getattr(request.state, "client", None)
    if not isinstance(client, Client):
        raise Unauthorized("Send the header `Authorization: Bearer KEY`.")
    return client


def permit(*wide: Scope, own: Collection[Scope] = ()) -> Callable[[Client], Awaitable[Caller]]:
    """Return a dependency that lets in whoever has one of the scopes.

    Args:
        wide: let a client see what belongs to anybody.
        own: let it see what belongs to itself.

    """

    async def check(client: Annotated[Client, Depends(authenticate)]) -> Caller:
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
Subscriber = Annotated[Caller, Depends(permit(Scope.OPS, own=[Scope.SUBMIT]))]
Decider = Annotated[Caller, Depends(permit(Scope.DECIDE))]
Restarter = Annotated[Caller, Depends(permit(Scope.DECIDE, Scope.OPS))]
JobReader = Annotated[Caller, Depends(permit(Scope.DECIDE, Scope.MODELS, Scope.AUDIT, Scope.OPS))]
ModelReader = Annotated[Caller, Depends(permit(*Scope))]
ModelWriter = Annotated[Caller, Depends(permit(Scope.MODELS))]
Deployer = Annotated[Caller, Depends(permit(Scope.MODELS, Scope.OPS))]
NoticeReader = Annotated[Caller, Depends(permit(Scope.MODELS, Scope.AUDIT, Scope.OPS))]
Auditor = Annotated[Caller, Depends(permit(Scope.AUDIT))]
Operator = Annotated[Caller, Depends(permit(Scope.OPS))]
