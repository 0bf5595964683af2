"""The demo's auditor believes nothing that was altered."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.db import transaction
from app.jobs import publication
from app.jobs.publication import NewVersion
from lethe.verify.reasons import NotProven
from lethe_examples.proofs import Fetch, check
from tests.app.working import NOW, PASSED, hold, plan

WEIGHTS = b"weights"
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def fetch(client: TestClient) -> Fetch:
    return lambda path: client.get(path).content


@pytest.fixture
def pinned(fetch: Fetch, ready: Callable[..., UUID]) -> str:
    """A signed head from before anybody asked for anything."""
    ready("digits", ["a", "b"], NOW)
    return fetch("/v1/audit/checkpoint").decode()


@pytest.fixture
def requests(client: TestClient, pinned: str) -> list[Any]:
    """One request that was fulfilled, and one of a stranger."""
    ids = [
        client.post("/v1/deletion-requests", json={"sample_ids": [sample]}).json()["id"]
        for sample in ("a", "stranger")
    ]
    (job_id,) = plan()
    with transaction() as session:
        new = NewVersion(DIGEST, 7, "iau", "approximate", "passed", 0.1)
        publication.publish(session, hold(job_id), new, [PASSED])
    return [client.get(f"/v1/deletion-requests/{id_}").json() for id_ in ids]


def test_an_honest_service_is_believed(
    fetch: Fetch, pinned: str, requests: list[Any], tmp_path: Path
) -> None:
    lines = list(check(fetch, pinned, requests, WEIGHTS, tmp_path))
    assert lines[0].startswith("2 receipts hold")
    assert DIGEST in lines[1]
    assert (tmp_path / "receipt-2.json").is_file()


def _other_samples(path: str, content: bytes) -> bytes:
    if not path.endswith("/receipt"):
        return content
    spoiled = json.loads(content)
    spoiled["log"]["entries"][0]["position"] += 1
    return json.dumps(spoiled, sort_keys=True, separators=(",", ":")).encode()


def _hidden_entry(path: str, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:]) if path.endswith("/export") else content


def _reordered_log(path: str, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([lines[0], lines[2], lines[1], *lines[3:]]) if "export" in path else content


@pytest.mark.parametrize("spoil", [_other_samples, _hidden_entry, _reordered_log])
def test_whatever_was_altered_is_not_believed(
    spoil: Callable[[str, bytes], bytes],
    fetch: Fetch,
    pinned: str,
    requests: list[Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(NotProven):
        list(check(lambda path: spoil(path, fetch(path)), pinned, requests, WEIGHTS, tmp_path))


def test_other_weights_than_those_of_the_receipt_are_not_believed(
    fetch: Fetch, pinned: str, requests: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(NotProven, match="weights"):
        list(check(fetch, pinned, requests, b"other", tmp_path))


def test_a_log_that_was_signed_otherwise_before_is_not_believed(
    fetch: Fetch, pinned: str, requests: list[Any], tmp_path: Path, client: TestClient
) -> None:
    from app import keys
    from lethe.verify.note import Checkpoint, peek, sign_note

    before = peek(pinned)
    forked = Checkpoint(before.origin, before.size, bytes(32), before.signed_at)
    other = sign_note(forked, keys.log_key().private)  # type: ignore[arg-type]
    with pytest.raises(NotProven) as refused:
        list(check(fetch, other, requests, WEIGHTS, tmp_path))
    assert refused.value.reason == "log-forked"


def test_a_log_that_grows_meanwhile_is_no_reason_for_doubt(
    client: TestClient, fetch: Fetch, pinned: str, requests: list[Any], tmp_path: Path
) -> None:
    def busy(path: str) -> bytes:
        client.post("/v1/deletion-requests", json={"sample_ids": ["another stranger"]})
        return fetch(path)

    assert list(check(busy, pinned, requests, WEIGHTS, tmp_path))
