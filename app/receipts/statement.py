"""The in-toto statement of a receipt (in-toto Attestation Framework v1), as canonical JSON."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as installed
from typing import Any

import rfc8785

from app.audit.ledger import Leaf
from app.receipts.facts import Fulfilled
from app.tables import DeletionRequest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lethe:deletion-receipt:v1"

# True of every receipt. What a verdict leaves open comes with the version that it is about.
NEVER_SHOWN = (
    "Which person or sample ID a pseudonym stands for: it takes the service's key to compute one.",
    "That no copy of the earlier weights, or of what was made with them, is left anywhere.",
    "That the training data, or copies of them, are deleted: Lethe changes models alone.",
    "That the samples which no version forgot were in no model: the service's manifests say so.",
)


def build(
    origin: str,
    request: DeletionRequest,
    found: Fulfilled,
    versions: Sequence[Mapping[str, Any]],
    last: Leaf,
    about: Sequence[Leaf],
    issued_at: datetime,
) -> bytes:
    """Return the statement about a finished request.

    Args:
        origin: the name of the log.
        request: the request.
        found: what became of it.
        versions: the facts that the log has of ``found.versions``, in their order.
        last: the log's last entry about the request's status.
        about: all of its entries about the request.
        issued_at: now, by the clock that all signers share.

    """
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": _subjects(request, versions, last),
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "issuer": {"log": origin, "software": f"lethe {installed('lethe')}"},
                "issued_at": _time(issued_at),
                "request": _request(request, found, last, _decisions(about)),
                "erasures": _erasures(found),
                "versions": [dict(facts) for facts in versions],
                "not_shown": _not_shown(versions),
            },
        }
    )


def encode(value: bytes) -> str:
    """Return base64 as the formats of the evidence write it (RFC 4648, section 4)."""
    return base64.b64encode(value).decode()


def _subjects(
    request: DeletionRequest, versions: Sequence[Mapping[str, Any]], last: Leaf
) -> list[dict[str, Any]]:
    if not versions:
        return [{"name": f"requests/{request.id}", "digest": {"sha256": last.hash.hex()}}]
    return [
        {
            "name": f"models/{facts['model_name']}/versions/{facts['number']}",
            "digest": {"sha256": facts["digest"].removeprefix("sha256:")},
        }
        for facts in versions
    ]


def _request(
    request: DeletionRequest, found: Fulfilled, last: Leaf, decisions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "id": str(request.id),
        "status": request.status,
        "regulation": request.regulation,
        "received_at": _time(request.received_at),
        "due_at": _time(request.due_at),
        # By the log's clock, which an auditor sees.
        "finished_at": _utc(json.loads(last.payload)["at"]),
        "id_key_id": request.id_key_id,
        "samples": [digest.hex() for digest in found.samples],
        "salt": None if request.samples_salt is None else request.samples_salt.hex(),
        # Left out where there are none, so that an older verifier can read the statement.
        **({"decisions": list(decisions)} if decisions else {}),
    }


def _decisions(about: Sequence[Leaf]) -> list[dict[str, Any]]:
    entries = [json.loads(leaf.payload) for leaf in about]
    return [
        {
            "action": entry["event"].removeprefix("decision."),
            "at": _utc(entry["at"]),
            "reason": entry["facts"].get("reason"),
            "due_at": None if not entry["facts"].get("due_at") else _utc(entry["facts"]["due_at"]),
        }
        for entry in entries
        if entry["event"].startswith("decision.")
    ]


def _erasures(found: Fulfilled) -> list[dict[str, Any]]:
    return [
        {
            "model": str(view.erasure.model_id),
            "name": view.model,
            "status": view.erasure.status,
            "version": None if view.version is None else view.version.number,
            "forgotten": [
                {"sample": each.sample_digest.hex(), "version": each.number}
                for each in found.forgotten
                if each.model_id == view.erasure.model_id
            ],
        }
        for view in found.erasures
    ]


def _not_shown(versions: Sequence[Mapping[str, Any]]) -> list[str]:
    told = list(NEVER_SHOWN)
    for facts in versions:
        verdict = facts["rungs"][-1]["verdict"] if facts.get("rungs") else None
        told += (verdict or {}).get("not_shown", [])
    return list(dict.fromkeys(told))


def _time(at: datetime | None) -> str | None:
    return None if at is None else _utc(at.isoformat())


def _utc(written: str) -> str:
    return written.replace("+00:00", "Z")
