"""A tiny recipe that the worker's own code runs on, in a real database and a real store."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from app.artifacts import ArtifactStore
from app.db import transaction
from app.deletions import planner
from app.derived import references as derived_references
from app.registry import service as registry
from app.settings import settings
from app.tables import RegisteredModel
from lethe.policy import Batching, Policy, References
from lethe.recipe import MapDataset, Recipe
from tests.workers.reference_sets import PLANNED, SEED, Trainings
from workers import check, ground, ledgers, references
from workers.artifacts import dump_state

RECORDS = 120
EXACT = Policy(
    batching=Batching(max_wait=timedelta(0)),
    ladder=("retrain",),
    references=References(count=0),
)


class Tiny(Recipe):
    """Two overlapping blobs in the plane, and a linear model."""

    batch_size = 32
    ids: Sequence[str] = tuple(f"person-{index}" for index in range(RECORDS))

    def build_model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def _blobs(self, seed: int, count: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 2
        points = torch.randn(count, 2, generator=generator) + labels[:, None]
        return TensorDataset(points, labels)

    def training_data(self) -> MapDataset:
        return self._blobs(1, RECORDS)

    def sample_ids(self) -> Sequence[str]:
        return list(self.ids)

    def holdout_data(self) -> MapDataset:
        return self._blobs(2, 400)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        points, labels = (torch.stack(part) for part in zip(*dataset, strict=True))  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(points), labels).backward()
            optimizer.step()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The recipe that the worker finds under any name."""
    tiny = Tiny()
    for module in (check, ground, ledgers, references):
        monkeypatch.setattr(module, "find_recipe", lambda _: tiny)
    return tiny


@pytest.fixture
def stored(environment: dict[str, str], recipe: Tiny) -> str:
    """The digest of a trained checkpoint of the recipe."""
    model = recipe.build_model()
    recipe.train(model, recipe.training_data(), 0)
    store = ArtifactStore(settings().artifacts_folder)
    return store.put([dump_state(model.state_dict())]).digest


@pytest.fixture
def serve(stored: str) -> Callable[..., UUID]:
    """Register the recipe's model and let the worker check it."""

    def make(policy: Policy | None = None) -> UUID:
        chosen = policy or EXACT
        with transaction() as session:
            model_id = registry.register(session, "tiny", "tiny", stored, chosen).id
        check.check(model_id)
        return model_id

    return make


@pytest.fixture
def job_for(client: TestClient) -> Callable[..., UUID]:
    """Ask for samples to be forgotten and plan the job for it."""

    def make(*samples: str) -> UUID:
        answer = client.post("/v1/deletion-requests", json={"sample_ids": samples})
        assert answer.status_code == 202
        with transaction() as session:
            jobs = planner.plan(session)
        assert len(jobs) == 1
        return jobs[0]

    return make


@pytest.fixture
def trainings(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    noted, train = Trainings(), recipe.train

    def spy(model: nn.Module, dataset: Any, seed: int) -> None:
        noted.seen.append(list(dataset.indices))
        train(model, dataset, seed)
        noted.states.append({k: v.detach().clone() for k, v in model.state_dict().items()})

    monkeypatch.setattr(recipe, "train", spy)
    return noted


@pytest.fixture
def plan(serve: Callable[..., UUID]) -> Callable[..., UUID]:
    """Plan references for the tiny recipe's model, which is registered once; returns their set."""
    served: list[UUID] = []

    def make(count: int = PLANNED) -> UUID:
        served.extend([] if served else [serve()])
        with transaction() as session:
            derived_references.discard(session, served[0], "a test wants new ones")
            version_id = session.get_one(RegisteredModel, served[0]).current_version_id
            assert version_id is not None
            begun = derived_references.begin(session, served[0], version_id, count, SEED)
        assert begun is not None
        return begun.id

    return make
