"""Who gets in. Closed by default: all but the open paths needs a credential that is in order."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems
from app.errors import TooManyRequests, Unauthorized, Unavailable
from app.identities import Identities
from app.issuer import Issuer, IssuerKeys
from app.rates import Rates
from app.scopes import Client
from app.security import OPEN_PATHS
from app.settings import Settings
from app.tokens import Tokens, Trust

# The same words whatever was wrong with a credential, or if there was none.
CLOSED = "Send the header `Authorization: Bearer KEY`."


class Closed:
    """ASGI middleware that lets nobody without a valid credential past, before a body is read."""

    def __init__(self, app: ASGIApp, identities: Identities, rates: Rates) -> None:
        """Take who knows the callers, and who counts them."""
        self._app = app
        self._identities = identities
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note who calls and pass the request on, or answer 401, 429 or 503."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._rates.close()
            return
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                client = await self._admit(scope)
            except (Unauthorized, TooManyRequests, Unavailable) as refusal:
                answer = problems.respond(
                    refusal.status,
                    refusal.slug,
                    refusal.title,
                    refusal.detail,
                    headers=refusal.headers,
                )
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["client"] = client
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Client:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        text = given.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthorized(CLOSED)
        client = self._identities.fresh(text) or await self._identify(scope, text)
        await self._rates.count_call(client.name)
        return client

    async def _identify(self, scope: Scope, text: str) -> Client:
        # The connection's own: whether a proxy's word counts is for the server's settings to say.
        host = scope["client"][0] if scope.get("client") else None
        if not self._identities.has_seen(text):
            # Beyond its limit an address learns nothing, also of what would be in order. Whoever
            # was here before is no stranger: else one behind the same proxy could lock all out.
            await self._rates.require_room(host)
        client = await self._identities.identify(text)
        if client is None:
            await self._rates.count_failure(host)
            raise Unauthorized(CLOSED)
        return client


def identities_of(settings: Settings) -> Identities:
    """Return who knows the callers, as the settings say."""
    return Identities(settings.root_key_digest(), _tokens(settings))


def rates_of(settings: Settings) -> Rates:
    """Return who counts the callers, as the settings say."""
    return Rates(
        settings.broker_url.get_secret_value(), settings.rate_limit, settings.failed_login_limit
    )


def _tokens(settings: Settings) -> Tokens | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    issuer = Issuer(
        settings.oidc_issuer, settings.oidc_jwks_url, plain_http=settings.mode == "embedded"
    )
    trust = Trust(
        issuer, settings.oidc_audience, settings.oidc_scope_claim, settings.oidc_client_claim
    )
    return Tokens(trust, IssuerKeys(issuer))
