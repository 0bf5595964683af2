"""Bytes in which somebody was forgotten are not taken back, by any door."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient

from app.artifacts import lock_file
from app.db import transaction
from app.tables import ModelVersion
from tests.app.gradient_ledgers import POLICY
from tests.app.purges import MINUTE, WEEK, age, purge_due, status, wait_for_a_lock, withdraw
from tests.app.scrubbing import check, look, publish, store
from workers.artifacts import dump_state

WEIGHTS = dump_state({"weight": torch.zeros(3)})
UNKNOWN = "sha256:" + "7" * 64


@pytest.fixture
def uploaded(client: TestClient) -> str:
    answer = client.post("/v1/checkpoints", content=WEIGHTS)
    assert answer.status_code == 201
    return str(answer.json()["digest"])


@pytest.fixture
def served(client: TestClient, uploaded: str) -> Callable[[str], ModelVersion]:
    """Serve the uploaded weights as a model's first version."""

    def make(name: str) -> ModelVersion:
        return check(UUID(register(client, name, uploaded).json()["id"]))

    return make


def register(client: TestClient, name: str, checkpoint: str) -> Any:
    body = {"name": name, "recipe": "digits", "checkpoint": checkpoint}
    return client.post("/v1/models", json={**body, "policy": POLICY.model_dump(mode="json")})


def doors(client: TestClient, digest: str) -> list[int]:
    """What each way in or out answers for these bytes."""
    return [
        client.get(f"/v1/checkpoints/{digest}").status_code,
        client.post("/v1/checkpoints", content=WEIGHTS).status_code,
        register(client, "again", digest).status_code,
    ]


@pytest.mark.parametrize("purged", [False, True])
def test_withdrawn_bytes_are_refused_at_every_door(
    client: TestClient, uploaded: str, served: Callable[[str], ModelVersion], purged: bool
) -> None:
    first = served("digits")
    publish(first, b"weights of version 2")
    age(first, WEEK + MINUTE)
    if purged:
        assert purge_due() == 1
    assert doors(client, uploaded) == [410, 410, 410]
    refused = client.post("/v1/checkpoints", content=WEIGHTS).json()
    assert refused["type"] == "urn:lethe:problem:gone"
    assert "was withdrawn because samples in it were forgotten" in refused["detail"]
    assert (store().find(uploaded) is None) is purged
    assert look().leftovers == ()
    assert not list(store().folder.glob(".incoming-*"))
    # Other bytes go on as ever.
    assert client.get(f"/v1/checkpoints/{UNKNOWN}").status_code == 404
    assert client.get("/v1/checkpoints/nonsense").status_code == 404
    assert register(client, "again", UNKNOWN).status_code == 422
    other = dump_state({"weight": torch.ones(3)})
    assert client.post("/v1/checkpoints", content=other).status_code == 201


def test_bytes_that_somebody_serves_are_taken_whoever_withdrew_them(
    client: TestClient, uploaded: str, served: Callable[[str], ModelVersion]
) -> None:
    first = served("digits")
    served("other")
    publish(first, b"weights of version 2")
    assert doors(client, uploaded) == [200, 201, 202]


def test_an_upload_does_not_bring_back_what_is_purged_meanwhile(
    client: TestClient, uploaded: str, served: Callable[[str], ModelVersion]
) -> None:
    first = served("digits")
    answers: list[Any] = []
    upload = threading.Thread(
        target=lambda: answers.append(client.post("/v1/checkpoints", content=WEIGHTS))
    )
    with transaction() as session:
        lock_file(session, first.digest)
        upload.start()
        wait_for_a_lock(upload)
        assert answers == []
        withdraw(first, WEEK + MINUTE)
        store().remove(first.digest)
    upload.join(timeout=20)
    assert answers[0].status_code == 410
    assert (purge_due(), status(first), store().find(uploaded)) == (1, "purged", None)
