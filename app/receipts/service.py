"""Make the receipt of a finished request: signed, and complete in itself for whoever checks it."""

import json
from typing import Any
from uuid import UUID

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import keys
from app.audit import heads, ledger, published
from app.audit.service import MOST_ABOUT_ONE
from app.db import transaction
from app.deletions import service as deletions
from app.errors import Conflict, Unavailable
from app.receipts import statement
from app.receipts.facts import Fulfilled, fulfilled
from app.tables import Transition
from lethe.verify.dsse import PAYLOAD_TYPE, pae
from lethe.verify.note import Checkpoint

FORMAT = "lethe-receipt-v1"
# A request seldom moves between two looks at it; then the newer state is told.
LOOKS = 5


def issue(request_id: UUID, only_of: str | None = None) -> bytes:
    """Return the receipt of a request as canonical JSON; it differs at each call in its dates.

    Raises:
        NotFound: no request has this id, or it is another client's than the named one.
        Conflict: it is not finished.
        NotSigning: the log cannot be signed.
        Unavailable: the request changes all the time.

    """
    for _ in range(LOOKS):
        with transaction() as session:
            request = deletions.get(session, request_id, only_of)
            if request.finished_at is None:
                raise Conflict(f"The request is {request.status}; its receipt comes with its end.")
        # Before the reading: what is told of is in the log that this head covers.
        checkpoint, note = heads.current()
        with transaction() as session:
            made = _receipt(session, request_id, checkpoint, note)
        if made is not None:
            return rfc8785.dumps(made)
    raise Unavailable("The request is changing; ask again.")


def _receipt(
    session: Session, request_id: UUID, checkpoint: Checkpoint, note: str
) -> dict[str, Any] | None:
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    request = deletions.get(session, request_id)
    told = ledger.leaves(session, 0, MOST_ABOUT_ONE, request.id)
    about = [leaf for leaf in told if leaf.position < checkpoint.size]
    moves = [leaf for leaf in about if _event(leaf).startswith("deletion_request.")]
    if not moves or _event(moves[-1]) != f"deletion_request.{request.status}":
        return None  # it moved after the head was signed
    found = fulfilled(session, request)
    versions = {version.id: _published(session, version.id) for version in found.versions}
    parents = [version.parent_id for version in found.versions if version.parent_id is not None]
    entries = {leaf.position: leaf for leaf in [*about, *versions.values()]}
    entries |= {leaf.position: leaf for leaf in (_published(session, id_) for id_ in parents)}
    if max(entries) >= checkpoint.size:
        return None
    return {
        "format": FORMAT,
        "envelope": _envelope(
            statement.build(
                checkpoint.origin,
                request,
                found,
                [json.loads(leaf.payload)["facts"] for leaf in versions.values()],
                moves[-1],
                about,
                published.moment(session),
            )
        ),
        "log": {
            "checkpoint": note,
            "entries": [
                {
                    "entry": entries[position].payload,
                    "path": [
                        sibling.hex()
                        for sibling in ledger.inclusion_path(session, position, checkpoint.size)
                    ],
                    "position": position,
                }
                for position in sorted(entries)
            ],
        },
        "transitions": _transitions(session, found),
    }


def _published(session: Session, version_id: UUID) -> ledger.Leaf:
    leaves = ledger.leaves(session, 0, MOST_ABOUT_ONE, version_id)
    return next(leaf for leaf in leaves if _event(leaf) == "version.current")


def _event(leaf: ledger.Leaf) -> str:
    event: str = json.loads(leaf.payload)["event"]
    return event


def _transitions(session: Session, found: Fulfilled) -> list[dict[str, Any]]:
    ids = [version.id for version in found.versions]
    rows = session.execute(
        select(Transition.version_id, Transition.proof).where(Transition.version_id.in_(ids))
    )
    proofs = {id_: json.loads(proof) for id_, proof in rows}
    return [
        {"digest": version.digest, "proof": proofs[version.id]}
        for version in found.versions
        if version.id in proofs
    ]


def _envelope(payload: bytes) -> dict[str, Any]:
    key = keys.log_key()
    private = key.private
    if not isinstance(private, Ed25519PrivateKey):
        raise TypeError("the log's key signs with Ed25519")
    signature = private.sign(pae(PAYLOAD_TYPE, payload))
    return {
        "payload": statement.encode(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.id, "sig": statement.encode(signature)}],
    }
