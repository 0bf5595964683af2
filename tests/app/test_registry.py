"""Checkpoints, models and weights over HTTP."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from app.artifacts import ArtifactStore
from app.checkpoints import require_safetensors
from app.errors import NotACheckpoint
from app.settings import settings

GOOD = save({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)})
DIGEST = "sha256:" + hashlib.sha256(GOOD).hexdigest()
UPLOAD = {"Content-Type": "application/vnd.safetensors"}


def header(content: dict[str, Any], data: bytes = b"") -> bytes:
    encoded = json.dumps(content).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def incoming_files() -> list[Path]:
    return list(settings().artifacts_folder.rglob(".incoming-*"))


def test_a_checkpoint_is_stored_under_its_digest(client: TestClient) -> None:
    answer = client.post("/v1/checkpoints", content=GOOD, headers=UPLOAD)
    assert answer.status_code == 201
    assert answer.json() == {"digest": DIGEST, "size_bytes": len(GOOD)}
    assert client.get(answer.headers["Location"]).json()["digest"] == DIGEST
    path = ArtifactStore(settings().artifacts_folder).find(DIGEST)
    assert path is not None
    assert path.read_bytes() == GOOD


BAD_CHECKPOINTS = {
    "nothing": b"",
    "a few bytes": b"abc",
    "a pickle": b"\x80\x04\x95" + b"c" * 100,
    "cut off": GOOD[:-1],
    "longer than it says": GOOD + b"\0",
    "a header longer than the file": struct.pack("<Q", 2**63) + GOOD,
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "not UTF-8": struct.pack("<Q", 2) + b"\xff\xff",
    "nested too deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a list": header([1]),  # type: ignore[arg-type]
    "no tensors": header({}),
    "a hole": header({"a": tensor(0, 4, [1]), "b": tensor(8, 12, [1])}, b"\0" * 12),
    "an overlap": header({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, b"\0" * 12),
    "a wrong shape": header({"a": tensor(0, 8, [3])}, b"\0" * 8),
    "a negative shape": header({"a": tensor(0, 8, [-2])}, b"\0" * 8),
    "an unknown dtype": header({"a": tensor(0, 8, [2], "F33")}, b"\0" * 8),
    "a name twice": struct.pack("<Q", 136)
    + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(136)
    + b"\0" * 4,
    "an unknown field": header({"a": {**tensor(0, 4, [1]), "x": 1}}, b"\0" * 4),
}


@pytest.mark.parametrize("content", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_what_is_no_safetensors_file_is_refused_and_leaves_nothing(
    client: TestClient, content: bytes
) -> None:
    answer = client.post("/v1/checkpoints", content=content, headers=UPLOAD)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "urn:lethe:problem:not-a-checkpoint"
    assert [p for p in settings().artifacts_folder.rglob("*") if p.is_file()] == []


@given(st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 4), max_size=3), min_size=1))
def test_whatever_safetensors_writes_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]]
) -> None:
    shapes = {name: shape for name, shape in shapes.items() if name.isprintable()} or {"a": [1]}
    dtypes = [torch.float32, torch.bfloat16, torch.int64, torch.bool]
    state = {
        name: torch.zeros(shape, dtype=dtypes[index % 4])
        for index, (name, shape) in enumerate(shapes.items())
    }
    path = tmp_path_factory.mktemp("checkpoints") / "x.safetensors"
    path.write_bytes(save(state))
    require_safetensors(path)
    path.write_bytes(save(state)[:-1])
    with pytest.raises(NotACheckpoint):
        require_safetensors(path)


def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(
    client: TestClient, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_CHECKPOINT_LIMIT", "1000")

    def chunks() -> Iterator[bytes]:
        yield GOOD
        yield b"\0" * 1000

    answer = client.post("/v1/checkpoints", content=chunks(), headers=UPLOAD)
    assert answer.status_code == 413
    assert incoming_files() == []


def test_a_full_store_is_a_507_and_leaves_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    answer = client.post("/v1/checkpoints", content=GOOD, headers=UPLOAD)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["detail"]
    assert ArtifactStore(settings().artifacts_folder).find(DIGEST) is None
    assert incoming_files() == []


def test_a_registered_model_is_checked_first(client: TestClient) -> None:
    client.post("/v1/checkpoints", content=GOOD, headers=UPLOAD)
    body = {"name": "m", "recipe": "digits", "checkpoint": DIGEST}
    answer = client.post("/v1/models", json=body)
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) >= 1
    found = client.get(answer.headers["Location"]).json()
    assert (found["status"], found["current"], found["checkpoint"]) == ("checking", None, DIGEST)
    assert found["policy"]["ladder"] == ["iau", "nabla_tau", "retrain"]
    assert client.get("/v1/models/m/current").status_code == 409
    assert client.get("/v1/models/m/current").json()["type"].endswith("no-current-version")
    assert [m["name"] for m in client.get("/v1/models").json()["items"]] == ["m"]


def test_a_name_is_given_once(client: TestClient, register: Callable[..., UUID]) -> None:
    register("taken")
    client.post("/v1/checkpoints", content=GOOD, headers=UPLOAD)
    body = {"name": "taken", "recipe": "digits", "checkpoint": DIGEST}
    answer = client.post("/v1/models", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lethe:problem:name-taken")


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "sha256:" + "0" * 64},
        {"checkpoint": "/etc/passwd"},
        {"checkpoint": "sha256:../../../etc/passwd"},
        {"recipe": "os:system"},
        {"recipe": "lethe_examples.digits:Digits"},
        {"name": "Upper"},
        {"name": ""},
        {"policy": {"ladder": []}},
        {"policy": {"ladder": ["iau", "iau"]}},
        {"policy": {"ladder": ["magic"]}},
        {"policy": {"options": {"iau": {"learning_rate": -1}}}},
        {"policy": {"bounds": {"leak_margin": 0.9}}},
        {"policy": {"batching": {"max_wait": -5}}},
        {"path": "/srv/x"},
    ],
)
def test_a_registration_that_cannot_be_served_is_refused(
    client: TestClient, change: dict[str, Any]
) -> None:
    client.post("/v1/checkpoints", content=GOOD, headers=UPLOAD)
    body = {"name": "m", "recipe": "digits", "checkpoint": DIGEST, **change}
    answer = client.post("/v1/models", json=body)
    assert answer.status_code == 422
    assert client.get("/v1/models").json()["items"] == []


def test_a_rejected_model_shows_all_its_problems(
    client: TestClient, register: Callable[..., UUID], reject: Callable[..., None]
) -> None:
    problems = [{"code": "a", "message": "first"}, {"code": "b", "message": "second"}]
    reject(register("m"), *problems)
    found = client.get("/v1/models/m").json()
    assert (found["status"], found["problems"]) == ("rejected", problems)
    answer = client.post("/v1/deletion-requests", json={"sample_ids": ["a"], "model": "m"})
    assert answer.status_code == 409


@pytest.fixture
def weights(client: TestClient, ready: Callable[..., UUID]) -> bytes:
    """The bytes that the store holds for the current version of `digits`."""
    ready("digits")
    digest = client.get("/v1/models/digits/current").json()["digest"]
    path = ArtifactStore(settings().artifacts_folder).find(digest)
    assert path is not None
    return path.read_bytes()


def test_the_current_weights_can_be_downloaded_whole(client: TestClient, weights: bytes) -> None:
    answer = client.get("/v1/models/digits/current/weights")
    assert (answer.status_code, answer.content) == (200, weights)
    assert answer.headers["ETag"] == f'"sha256:{hashlib.sha256(weights).hexdigest()}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    again = client.get(
        "/v1/models/digits/current/weights", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_the_current_weights_can_be_downloaded_in_ranges(
    client: TestClient, weights: bytes
) -> None:
    url = "/v1/models/digits/current/weights"
    etag = client.get(url).headers["ETag"]
    for wanted, part in (("0-1", weights[:2]), ("2-", weights[2:]), ("-3", weights[-3:])):
        headers = {"Range": f"bytes={wanted}", "If-Range": etag}
        answer = client.get(url, headers=headers)
        assert (answer.status_code, answer.content) == (206, part)
    other = client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"sha256:other"'})
    assert (other.status_code, other.content) == (200, weights)


@pytest.mark.parametrize(("wanted", "status"), [("bytes=900-", 416), ("lines=1-2", 400)])
def test_a_range_that_cannot_be_served_is_a_problem(
    client: TestClient, weights: bytes, wanted: str, status: int
) -> None:
    answer = client.get("/v1/models/digits/current/weights", headers={"Range": wanted})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_an_artifact_that_is_missing_is_said_to_be(client: TestClient, weights: bytes) -> None:
    for path in settings().artifacts_folder.rglob("*"):
        if path.is_file():
            path.unlink()
    answer = client.get("/v1/models/digits/current/weights")
    assert answer.status_code == 507
    assert client.get("/v1/models/digits/current").status_code == 200
