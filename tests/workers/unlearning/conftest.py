"""Tiny float64 models with data of their own; nothing here needs a database or a broker."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Subset, TensorDataset

from lethe.policy import IauOptions, MethodOptions, NablaTauOptions
from lethe.recipe import Recipe
from workers.unlearning.method import Context

FEATURES = 24


@dataclass
class Classifier(Recipe):
    """Two classes that only one feature of many tells apart, so a network learns by heart."""

    batch_size: int = 64
    batch_norm: bool = False
    knows_entropies: bool = True
    train_epochs: int = 120

    def build_model(self) -> nn.Module:
        norm = [nn.BatchNorm1d(32)] if self.batch_norm else []
        return nn.Sequential(nn.Linear(FEATURES, 32), *norm, nn.ReLU(), nn.Linear(32, 2)).double()

    def _records(self, number: int, seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(number, FEATURES, generator=generator, dtype=torch.float64)
        noise = torch.randn(number, generator=generator, dtype=torch.float64)
        return TensorDataset(x, (x[:, 0] + noise > 0).long())

    def training_data(self) -> TensorDataset:
        return self._records(360, seed=1)

    def sample_ids(self) -> list[str]:
        return [f"sample-{index}" for index in range(360)]

    def holdout_data(self) -> TensorDataset:
        return self._records(800, seed=2)

    def losses(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def entropies(self, model: nn.Module, batch: list[Tensor]) -> Tensor | None:
        if not self.knows_entropies:
            return None
        log_p = model(batch[0]).log_softmax(dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)

    def metric(self, model: nn.Module, dataset: TensorDataset) -> float:
        x, y = (torch.stack(column) for column in zip(*dataset, strict=True))
        with torch.no_grad():
            return float((model(x).argmax(dim=1) == y).double().mean())

    def train(self, model: nn.Module, dataset: TensorDataset, seed: int) -> None:
        x, y = (torch.stack(column) for column in zip(*dataset, strict=True))
        # The seed draws nothing here: the model comes drawn, and every batch is the whole set.
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(self.train_epochs):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


@dataclass
class Regression(Recipe):
    """Least squares, whose gradient is known in closed form."""

    batch_size: int = 256

    def build_model(self) -> nn.Module:
        return nn.Linear(3, 1, bias=False).double()

    def training_data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(3)
        drawn = torch.randn(25, 4, generator=generator, dtype=torch.float64)
        return TensorDataset(drawn[:, :3], drawn[:, 3])

    def sample_ids(self) -> list[str]:
        return [str(index) for index in range(25)]

    def holdout_data(self) -> TensorDataset:
        return self.training_data()

    def losses(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return (model(batch[0]).squeeze(1) - batch[1]) ** 2


@dataclass(frozen=True)
class Trained:
    """A recipe, its data split for one job, and a parent that knows its training data by heart."""

    recipe: Classifier
    forget: Subset
    retain: Subset
    holdout: TensorDataset
    state: dict[str, Tensor]

    def model(self) -> nn.Module:
        model = self.recipe.build_model()
        model.load_state_dict(self.state)
        return model

    def with_recipe(self, **changes: object) -> "Trained":
        return replace(self, recipe=replace(self.recipe, **changes))


def fitted(recipe: Classifier, data: TensorDataset | Subset) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = recipe.build_model()
        recipe.train(model, data, seed=0)
    return model.state_dict()


def train(recipe: Classifier) -> Trained:
    data = recipe.training_data()
    forget, retain = Subset(data, range(120)), Subset(data, range(120, 360))
    return Trained(recipe, forget, retain, recipe.holdout_data(), fitted(recipe, data))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained() -> Trained:
    return train(Classifier())


@pytest.fixture(scope="session")
def trained_with_batch_norm() -> Trained:
    return train(Classifier(batch_norm=True))


@pytest.fixture(scope="session")
def retrained(trained: Trained) -> dict[str, Tensor]:
    """Weights that never saw the forgotten records."""
    return fitted(trained.recipe, trained.retain)


@pytest.fixture
def regression() -> Regression:
    return Regression()


@pytest.fixture
def context() -> Callable[..., Context]:
    """Make a context; ``patience`` is how often it says that it is not cancelled."""

    def make(
        recipe: Recipe,
        *,
        seed: int = 5,
        patience: int | None = None,
        progress: Callable[[str, float], None] = lambda *_: None,
    ) -> Context:
        asked = count()
        return Context(
            recipe=recipe,
            seed=seed,
            device=torch.device("cpu"),
            progress=progress,
            cancelled=lambda: patience is not None and next(asked) >= patience,
        )

    return make


@pytest.fixture
def options() -> MethodOptions:
    """Options with which every method takes several batches and less than a second."""
    return MethodOptions(
        iau=IauOptions(learning_rate=1e-2), nabla_tau=NablaTauOptions(batch_size=50)
    )
