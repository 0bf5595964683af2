"""Answer with weights, in ranges if asked, their digest being the ETag; or their signature."""

import base64
from pathlib import Path

from fastapi import Response
from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app import problems
from app.errors import Malformed, RangeNotSatisfiable

MEDIA_TYPE = "application/vnd.safetensors"
SIGNATURE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class WeightsResponse(FileResponse):
    """Starlette's file response, whose plain-text refusals of a range become problems."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the ranges, or a problem."""
        refused: Response | None = None

        async def watched(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                kind = RangeNotSatisfiable if message["status"] == 416 else Malformed
                headers = {
                    name.decode(): value.decode()
                    for name, value in message["headers"]
                    if name == b"content-range"
                }
                detail = "Ask for a range of bytes within the file."
                refused = problems.respond(
                    kind.status, kind.slug, kind.title, detail, headers=headers
                )
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, watched)
        if refused is not None:
            await refused(scope, receive, send)


def answer(path: Path, digest: str, name: str, if_none_match: str | None) -> Response:
    """Return the file, or 304 when the client has it already."""
    etag = f'"{digest}"'
    headers = {
        "ETag": etag,
        # RFC 9530: the digest of the whole file, also on an answer that is a part of it.
        "Repr-Digest": f"sha-256=:{_base64(digest)}:",
        # The bytes never change; which version is current does, and only a key may see either.
        "Cache-Control": "private, no-cache",
    }
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return WeightsResponse(path, headers=headers, media_type=MEDIA_TYPE, filename=name)


def answer_signature(path: Path, name: str) -> Response:
    """Return the signature of a file of weights."""
    # The same weights may be signed again, by another key.
    headers = {"Cache-Control": "private, no-cache"}
    return FileResponse(path, headers=headers, media_type=SIGNATURE_MEDIA_TYPE, filename=name)


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()
