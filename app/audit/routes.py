"""The transparency log over HTTP: entries, tree heads, both kinds of proof, and the public keys."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from app.audit import export, heads, ledger, published, service, signed_heads
from app.audit.schemas import (
    ConsistencyProof,
    CurrentHead,
    InclusionProof,
    LogEntries,
    PublishedKeys,
    describe_current,
    describe_head,
    describe_inclusion,
    describe_leaf,
)
from app.db import transaction
from app.errors import NotFound, NotSigning, RolledBack, Unavailable
from app.problems import responses
from app.security import Auditor
from app.wire import COMMON, Limit
from lethe.verify.keys import to_jwk, to_pem

router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=responses(*COMMON))
keys_router = APIRouter(prefix="/v1/keys", tags=["audit"])

JWK_SET = "application/jwk-set+json"
_NOTE = "A signed note (C2SP signed-note and tlog-checkpoint)."
_LINES = "JSON Lines: the log's name, each entry in order, each signed head."
_SIGNING = (Unavailable, NotSigning, RolledBack)

# Positions are stored as 64-bit integers.
Whole = Annotated[int, Query(ge=0, lt=2**63)]


def _described(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string"}}}
    return {200: {"content": content, "description": description}}


@keys_router.get(
    "",
    response_class=JSONResponse,
    responses={
        200: {
            "content": {JWK_SET: {"schema": PublishedKeys.model_json_schema()}},
            "description": "A JWK Set (RFC 7517). `exp` is when a key was retired.",
        },
        **responses(Unavailable),
    },
)
def keys() -> JSONResponse:
    """Return the public keys of tree heads, receipts and weights, also those that are retired."""
    with transaction() as session:
        listed = published.published(session)
    # PEM beside it, for programs that know no JWK.
    written = [{**to_jwk(key), "pem": to_pem(key.public)} for key in listed]
    return JSONResponse({"keys": written}, media_type=JWK_SET)


@router.get("/head")
def head(_: Auditor) -> CurrentHead:
    """Return the newest tree head, over every entry committed so far, and the newest signed one."""
    service.place_all()
    with transaction() as session:
        return describe_current(ledger.head(session), signed_heads.latest(session))


@router.get(
    "/checkpoint",
    response_class=PlainTextResponse,
    responses={**_described("text/plain", _NOTE), **responses(*COMMON, *_SIGNING)},
)
def checkpoint(_: Auditor) -> PlainTextResponse:
    """Return the newest signed tree head as a note; the first one is signed when asked for."""
    with transaction() as session:
        signed = signed_heads.latest(session)
    return PlainTextResponse(heads.current()[1] if signed is None else signed.note)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**_described(export.MEDIA_TYPE, _LINES), **responses(*COMMON, *_SIGNING)},
)
def export_log(_: Auditor) -> StreamingResponse:
    """Return the whole log as it is now, for `lethe verify-log`; it ends with a signed head."""
    return StreamingResponse(
        export.begin(),
        media_type=export.MEDIA_TYPE,
        headers={"Content-Disposition": 'attachment; filename="log.jsonl"'},
    )


@router.get("/entries")
def entries(
    _: Auditor, start: Whole = 0, limit: Limit = 100, subject: UUID | None = None
) -> LogEntries:
    """Return entries in the order of the log, or those about one request, job, version or model."""
    service.place_all()
    with transaction() as session:
        found = ledger.leaves(session, start, limit, subject)
    return LogEntries(
        items=[describe_leaf(leaf) for leaf in found],
        next_start=found[-1].position + 1 if len(found) == limit else None,
    )


@router.get("/proofs/inclusion", responses=responses(NotFound))
def inclusion(_: Auditor, position: Whole, size: Whole | None = None) -> InclusionProof:
    """Prove that an entry is in the tree of a size, the newest one by default."""
    service.place_all()
    with transaction() as session:
        return describe_inclusion(service.prove(session, position, ledger.head(session, size)))


@router.get("/proofs/consistency", responses=responses(NotFound))
def consistency(_: Auditor, first: Whole, second: Whole | None = None) -> ConsistencyProof:
    """Prove that the tree of one size appends to that of another, and changes nothing in it."""
    service.place_all()
    with transaction() as session:
        later = ledger.head(session, second)
        path = ledger.consistency_path(session, first, later.size)
        return ConsistencyProof(
            first=describe_head(ledger.head(session, first)),
            second=describe_head(later),
            path=[node.hex() for node in path],
        )
