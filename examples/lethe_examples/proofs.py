"""Check a demo's receipts and the log as an auditor would: with ``lethe.verify`` and hashlib."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from lethe.verify import leaf_hash, root_of, verify_consistency, verify_inclusion

Get = Callable[..., Any]


class NotProven(Exception):
    """A proof does not hold; the message says which."""


def check(get: Get, pinned: Any, requests: list[Any], weights: bytes) -> Iterator[str]:
    """Yield what was proven, step by step.

    Raises:
        NotProven: at the first thing that does not hold.

    """
    digest = "sha256:" + hashlib.sha256(weights).hexdigest()
    proofs = events = 0
    for request in requests:
        receipt = get(f"/v1/deletion-requests/{request['id']}/receipt")
        for proof in receipt["proofs"]:
            _require(_included(proof), "an entry of a receipt is not in the log")
            proofs += 1
        entries = [json.loads(proof["entry"]["entry"]) for proof in receipt["proofs"]]
        if request["status"] == "completed":
            published = [e["facts"]["digest"] for e in entries if e["event"] == "version.current"]
            _require(published == [digest], "a receipt names other weights than were downloaded")
            events += 1
    yield f"{len(requests)} receipts, {proofs} inclusion proofs hold"
    yield f"{events} of them name the digest of the downloaded weights: {digest}"
    head = get("/v1/audit/head")
    proof = get("/v1/audit/proofs/consistency", first=pinned["size"], second=head["size"])
    _require(
        verify_consistency(
            pinned["size"],
            head["size"],
            [bytes.fromhex(node) for node in proof["path"]],
            bytes.fromhex(pinned["root_hash"]),
            bytes.fromhex(head["root_hash"]),
        ),
        "the log was rewritten since its head was pinned",
    )
    yield f"the log of {head['size']} entries appends to the {pinned['size']} pinned before"
    _require(root_of(_entries(get, head["size"])).hex() == head["root_hash"], "the root is wrong")
    yield f"its root, recomputed from every entry, is {head['root_hash']}"


def _included(proof: Any) -> bool:
    return verify_inclusion(
        leaf_hash(proof["entry"]["entry"].encode()),
        proof["entry"]["position"],
        proof["head"]["size"],
        [bytes.fromhex(node) for node in proof["path"]],
        bytes.fromhex(proof["head"]["root_hash"]),
    )


def _entries(get: Get, size: int) -> Iterator[bytes]:
    start: int | None = 0
    while start is not None and start < size:
        page = get("/v1/audit/entries", start=start)
        for item in page["items"]:
            if item["position"] < size:
                yield item["entry"].encode()
        start = page["next_start"]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotProven(otherwise)
