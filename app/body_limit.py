"""Refuse bodies that are too large, before and while they arrive."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.errors import ContentTooLarge


class BodyLimit:
    """ASGI middleware that counts a request's body, whatever its headers claim.

    Starlette reads a body whole before a route sees it, so that the limit has to stand here.
    """

    def __init__(self, app: ASGIApp, limit: int, exempt: Callable[[str], bool]) -> None:
        """Take the limit in bytes, and which paths count for themselves."""
        self._app = app
        self._limit = limit
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http" or self._exempt(scope["path"]):
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(scope, receive, send)
            return
        received = 0
        started = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if started:
                raise
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = ContentTooLarge
        detail = f"A body may have at most {self._limit} bytes; split the request."
        answer = problems.respond(
            kind.status, kind.slug, kind.title, detail, headers={"Connection": "close"}
        )
        await answer(scope, receive, send)


class _TooLarge(BaseException):
    # Not an Exception: FastAPI turns those raised while it reads a body into 400.
    pass
