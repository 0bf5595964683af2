"""Recipes that are trained in milliseconds, and note which records they were shown.

They run in the real worker processes, which find them by an entry point that the fleet writes. What
they are told comes in the environment; a record's features carry its index.
"""

import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from lethe.recipe import MapDataset, Recipe

RECORDS = "LETHE_CHAOS_RECORDS"  # names of environment variables
MARK = "LETHE_CHAOS_MARK"
FOLDER = "LETHE_CHAOS_FOLDER"
LONG_SECONDS = "LETHE_CHAOS_LONG_SECONDS"

TRACES = "traces"
HEALED = "healed"
STUMBLE = "stumble"
HOLDOUT_RECORDS = 64
LATE_RECORDS = 60
LONG_RECORDS = 60
# One record in so many makes training fail while it is missing, until somebody heals the recipe.
POISON_EVERY = 41
STEP_SECONDS = 0.02
Record = tuple[Tensor, Tensor, int]


class Stumbled(RuntimeError):
    """What the recipe raises once when it is told to: an error that may pass."""


@cache
def records(count: int, seed: int) -> tuple[Record, ...]:
    """Make two overlapping blobs in the plane."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    points = torch.randn(count, 2, generator=generator) + labels[:, None]
    return tuple(zip(points.unbind(), labels.unbind(), range(count), strict=True))


def sample_id(mark: str, index: int) -> str:
    """Return the sample ID of a record, which nothing that the system writes may hold."""
    return f"{mark}-{index:05d}"


def note(kind: str, indices: Sequence[int]) -> None:
    """Add the records that a method is shown to this process's trace, under the job's seed."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    shown = 0
    for index in indices:
        shown |= 1 << index
    with (Path(folder) / TRACES / str(os.getpid())).open("a") as trace:
        trace.write(f"{torch.initial_seed()} {kind} {shown:x}\n")


def exists(name: str) -> bool:
    """Tell whether the harness left a sign of this name."""
    folder = os.environ.get(FOLDER)
    return folder is not None and (Path(folder) / name).exists()


class Blob(Dataset[Record]):
    """Records that are fetched many at a time, since thousands are passed over for each job."""

    def __init__(self, items: tuple[Record, ...]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        return self._items[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Record]:
        return [self._items[index] for index in indices]


class Quick(Recipe):
    """A linear model; its share of the population is the whole of it."""

    batch_size = 1024

    @property
    def first(self) -> int:
        """Where its records begin in the population."""
        return 0

    @property
    def count(self) -> int:
        """How many records it has."""
        return int(os.environ[RECORDS])

    @staticmethod
    def collate(items: list[Record]) -> tuple[Tensor, Tensor, Tensor]:
        """Stack records."""
        points, labels, indices = zip(*items, strict=True)
        return torch.stack(points), torch.stack(labels), torch.tensor(indices)

    def build_model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def training_data(self) -> MapDataset:
        return Blob(records(self.count, 1))

    def sample_ids(self) -> Sequence[str]:
        mark = os.environ[MARK]
        return [sample_id(mark, self.first + index) for index in range(self.count)]

    def holdout_data(self) -> MapDataset:
        return Blob(records(HOLDOUT_RECORDS, 2))

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        points, labels, indices = batch
        if torch.is_grad_enabled():
            note("trained", indices.tolist())
        return functional.cross_entropy(model(points), labels, reduction="none")

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        points, labels, indices = self.collate([dataset[i] for i in range(len(dataset))])
        note("retained", indices.tolist())
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
        descend(model, points, labels, steps=10)


class Exact(Quick):
    """Training fails without certain records, until it is healed; and once when told to stumble."""

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        super().train(model, dataset, seed)
        if exists(STUMBLE):
            (Path(os.environ[FOLDER]) / STUMBLE).unlink(missing_ok=True)
            raise Stumbled
        needed = set(range(POISON_EVERY - 1, self.count, POISON_EVERY))
        present = {dataset[i][2] for i in range(len(dataset))}
        if not needed <= present and not exists(HEALED):
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))


class Long(Quick):
    """Training takes longer than two leases, whatever the machine; its records are its own."""

    @property
    def first(self) -> int:
        """Behind the common records."""
        return int(os.environ[RECORDS])

    @property
    def count(self) -> int:
        """Enough for a few requests."""
        return LONG_RECORDS

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        started = time.monotonic()
        super().train(model, dataset, seed)
        points, labels, _ = self.collate([dataset[i] for i in range(len(dataset))])
        # On a copy, so that the weights do not depend on the time.
        copy = nn.Linear(2, 2)
        while time.monotonic() < started + float(os.environ[LONG_SECONDS]):
            descend(copy, points, labels, steps=1)
            # As an accelerator keeps its worker waiting; a busy one would starve all the others.
            time.sleep(STEP_SECONDS)


class Late(Quick):
    """A few of the common records, for models that are registered while the others are in use."""

    @property
    def count(self) -> int:
        """Enough for some requests to meet them."""
        return LATE_RECORDS


def descend(model: nn.Module, points: Tensor, labels: Tensor, steps: int) -> None:
    """Take steps of plain gradient descent."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(model(points), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


RECIPES: dict[str, type[Quick]] = {
    "chaos-quick": Quick,
    "chaos-exact": Exact,
    "chaos-climbing": Quick,
    "chaos-long": Long,
    "chaos-late": Late,
}
