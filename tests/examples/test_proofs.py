"""The demo's auditor believes nothing that was altered."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.audit import merkle
from lethe.verify import leaf_hash
from lethe_examples.proofs import NotProven, check

WEIGHTS = b"weights"
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
ENTRIES = [
    json.dumps({"event": "version.current" if n == 3 else "x", "facts": {"digest": DIGEST}, "n": n})
    for n in range(6)
]
REQUEST = {"id": "r", "status": "completed"}


def log(entries: list[str]) -> dict[merkle.Address, bytes]:
    hashes = iter(leaf_hash(entry.encode()) for entry in entries)
    return dict(merkle.append(0, {}, hashes).nodes)


def head(size: int) -> dict[str, Any]:
    return {"size": size, "root_hash": merkle.root(size, log(ENTRIES).__getitem__).hex()}


def item(position: int) -> dict[str, Any]:
    return {"position": position, "entry": ENTRIES[position]}


def answers() -> dict[str, Any]:
    nodes = log(ENTRIES).__getitem__
    proofs = [
        {
            "entry": item(position),
            "head": head(6),
            "path": [node.hex() for node in merkle.inclusion_path(position, 6, nodes)],
        }
        for position in (1, 3)
    ]
    path = [node.hex() for node in merkle.consistency_path(2, 6, nodes)]
    return {
        "/v1/deletion-requests/r/receipt": {"proofs": proofs},
        "/v1/audit/head": head(6),
        "/v1/audit/proofs/consistency": {"path": path},
        "/v1/audit/entries": {"items": [item(n) for n in range(6)], "next_start": None},
    }


def test_an_honest_log_is_proven() -> None:
    served = answers()
    lines = list(check(lambda path, **_: served[path], head(2), [REQUEST], WEIGHTS))
    assert len(lines) == 4


def _spoil_entry(served: dict[str, Any]) -> None:
    served["/v1/deletion-requests/r/receipt"]["proofs"][0]["entry"]["entry"] += " "


def _spoil_path(served: dict[str, Any]) -> None:
    served["/v1/deletion-requests/r/receipt"]["proofs"][1]["path"].pop()


def _drop_version(served: dict[str, Any]) -> None:
    served["/v1/deletion-requests/r/receipt"]["proofs"].pop()


def _spoil_consistency(served: dict[str, Any]) -> None:
    served["/v1/audit/proofs/consistency"]["path"][0] = "00" * 32


def _hide_entry(served: dict[str, Any]) -> None:
    served["/v1/audit/entries"]["items"].pop(2)


@pytest.mark.parametrize(
    "spoil", [_spoil_entry, _spoil_path, _drop_version, _spoil_consistency, _hide_entry]
)
def test_whatever_was_altered_is_not_believed(spoil: Callable[[dict[str, Any]], None]) -> None:
    served = copy.deepcopy(answers())
    spoil(served)
    with pytest.raises(NotProven):
        list(check(lambda path, **_: served[path], head(2), [REQUEST], WEIGHTS))


def test_other_weights_than_those_of_the_receipt_are_not_believed() -> None:
    served = answers()
    with pytest.raises(NotProven, match="other weights"):
        list(check(lambda path, **_: served[path], head(2), [REQUEST], b"other"))


def test_a_pinned_head_of_another_log_is_not_believed() -> None:
    served = answers()
    with pytest.raises(NotProven, match="rewritten"):
        list(
            check(
                lambda path, **_: served[path],
                {"size": 2, "root_hash": "11" * 32},
                [REQUEST],
                WEIGHTS,
            )
        )
