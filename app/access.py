"""Log each request by its route, and answer what nobody foresaw, without quoting anything."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems

log = structlog.get_logger()

# Asked every few seconds by whatever watches the service.
QUIET_ROUTES = frozenset({"/healthz", "/readyz"})


class Access:
    """ASGI middleware that stands before all others.

    A path can quote a sample ID, and so can the words of an exception: the log gets the route's
    template, the exception's type and its place. The server's own logs would get both in full.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an exception ends here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  # the last stop before the server's own log
            log.error("request.failed", error=type(error).__name__, where=_place(error))
            if status is None:
                detail = "The error was logged. Nothing was stored."
                answer = problems.respond(500, "internal", "Internal error", detail)
                await answer(scope, receive, watched)
        route = getattr(scope.get("route"), "path", None)
        if route not in QUIET_ROUTES:
            log.info(
                "request.answered",
                method=scope["method"],
                route=route,
                status=status,
                seconds=round(time.monotonic() - started, 4),
            )


def _place(error: BaseException) -> str | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return None if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
