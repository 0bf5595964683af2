"""Twenty batches one after another on one model, by the product's own path."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor
from torch.utils.data import Subset

from app.artifacts import ArtifactStore
from app.db import transaction
from app.deletions import planner
from app.derived import leasing
from app.settings import settings
from app.tables import GradientLedger
from lethe.policy import Batching, Debt, Policy, References, Verdicts
from workers import ledgers, run
from workers.artifacts import load_state
from workers.unlearning.weights import distance

BATCHES, SAMPLES = 20, 3
BOUND = 0.1
POLICY = Policy(
    batching=Batching(max_wait=timedelta(0)),
    ladder=("iau", "retrain"),
    # Three samples show nothing; what is watched here is what adds up over many such batches.
    verdicts=Verdicts(inconclusive="publish"),
    references=References(count=0),
    debt=Debt(max_share=BOUND, max_drift=10.0),
)


@pytest.fixture(autouse=True)
def the_start_decides_nothing(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train from zero, so that two retrains are one."""
    train = recipe.train

    def from_zero(model: Any, dataset: Any, seed: int) -> None:
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        train(model, dataset, seed)

    monkeypatch.setattr(recipe, "train", from_zero)


def retrained(recipe: Any, forgotten: int) -> dict[str, Tensor]:
    """Return the weights of a model that never saw the first records."""
    data = recipe.training_data()
    model = recipe.build_model()
    recipe.train(model, Subset(data, range(forgotten, len(data))), 0)
    return dict(model.state_dict())


@pytest.fixture
def drift(client: TestClient, recipe: Any) -> Callable[[int], float]:
    """How far the current version lies from a retrain without the first so many records."""

    def measure(forgotten: int) -> float:
        return distance(retrained(recipe, forgotten), state(client), ["weight", "bias"]).relative

    return measure


def state(client: TestClient) -> dict[str, Tensor]:
    """Return the current version's weights, from the store."""
    digest = client.get("/v1/models/tiny/current").json()["digest"]
    path = ArtifactStore(settings().artifacts_folder).find(digest)
    assert path is not None
    return load_state(path, digest)


def work() -> list[UUID]:
    """Do what is planned and what is kept beside the weights; returns the jobs done."""
    with transaction() as session:
        jobs = planner.plan(session)
    for job_id in jobs:
        run.run(job_id)
    with transaction() as session:
        sums = leasing.waiting(session, GradientLedger)
    for ledger_id in sums:
        ledgers.refresh(ledger_id)
    return jobs


def test_debt_grows_batch_by_batch_and_a_retrain_pays_it_at_the_bound(
    client: TestClient,
    serve: Callable[..., UUID],
    recipe: Any,
    drift: Callable[[int], float],
) -> None:
    serve(POLICY)
    work()
    owed, way, drifts, rebases = 0, 0.0, [], 0
    before = state(client)
    for batch in range(BATCHES):
        names = [f"person-{batch * SAMPLES + index}" for index in range(SAMPLES)]
        asked = client.post("/v1/deletion-requests", json={"sample_ids": names})
        (job_id,) = work()
        job = client.get(f"/v1/jobs/{job_id}").json()
        rung = job["rungs"][-1]
        assert (job["status"], rung["method"], rung["outcome"]) == (
            "published",
            "iau",
            "inconclusive",
        )
        # The sum that was kept beside the parent's weights was current, and was used.
        assert rung["evidence"]["gradient"] == "ledger"
        assert client.get(asked.headers["Location"]).json()["status"] == "completed"
        owed += SAMPLES
        drifts.append(drift((batch + 1) * SAMPLES))
        debt = client.get("/v1/models/tiny").json()["debt"]
        assert debt["samples"] == owed
        way += distance(before, after := state(client), ["weight", "bias"]).relative
        assert debt["drift"] == pytest.approx(way)
        before = after
        assert debt["share"] <= BOUND + SAMPLES / 120
        assert drifts[-1] > 1e-4
        if debt["share"] > BOUND:
            (rebase,) = work()
            job = client.get(f"/v1/jobs/{rebase}").json()
            assert (job["status"], job["rebase"], job["rungs"][0]["method"]) == (
                "published",
                True,
                "retrain",
            )
            # Nothing of the twenty batches is left in weights that equal a plain retrain's.
            assert drift((batch + 1) * SAMPLES) == 0
            owed, way, rebases, before = 0, 0.0, rebases + 1, state(client)
    assert rebases == BATCHES * SAMPLES // 15
    assert work() == []
    assert torch.tensor(drifts).isfinite().all()
