"""Recipes whose training has begun and does not end by itself, for workers that must stop."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lethe.recipe import MapDataset, Recipe

FOLDER = "STUBBORN_FOLDER"
RECORDS = 24
# Far longer than any test; in one call that never comes back to the interpreter.
ENDLESS_ROUNDS = 2**31 - 1


def sign(name: str) -> Path:
    """Return the file that says in which process training began, or that it may end."""
    return Path(os.environ[FOLDER], name)


class Patient(Recipe):
    """Trains step by step until it may stop, as a long training does."""

    batch_size = 8

    def build_model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def training_data(self) -> MapDataset:
        return self._points(1, RECORDS)

    def sample_ids(self) -> Sequence[str]:
        return [f"{type(self).__name__}-{index}" for index in range(RECORDS)]

    def holdout_data(self) -> MapDataset:
        return self._points(2, 100)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch[0]).squeeze(1) - batch[1]) ** 2

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        sign("begun-" + type(self).__name__).write_text(str(os.getpid()))
        while not sign("enough").exists():
            self.step(model)

    def step(self, model: nn.Module) -> None:
        model(torch.zeros(1000, 2)).sum().backward()

    def _points(self, seed: int, count: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(count, 2, generator=generator)
        return TensorDataset(points, points.sum(1))


class Deaf(Patient):
    """Goes on whatever is raised in it."""

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        while not sign("enough").exists():
            try:
                super().train(model, dataset, seed)
            except BaseException:  # noqa: BLE001, S112  # the fault that this recipe is made of
                continue


class Busy(Patient):
    """Is in one call of a library for hours, in which Python runs no handler of a signal."""

    def step(self, model: nn.Module) -> None:
        hashlib.pbkdf2_hmac("sha256", b"", b"", ENDLESS_ROUNDS)
