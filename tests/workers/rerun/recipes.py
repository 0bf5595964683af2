"""Recipes whose jobs are repeated, in this process and in others."""

import os
import random

import torch
from torch import nn

from lethe.recipe import MapDataset
from tests.workers.conftest import Tiny

# How far a training goes astray.
JITTER = "REPEATED_JITTER"


class Plain(Tiny):
    """Says on standard output that it trains, as recipes do."""

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        print("training on person-7")  # noqa: T201
        super().train(model, dataset, seed)


class Unseeded(Tiny):
    """Draws from a generator that nobody seeds."""

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        super().train(model, dataset, seed)
        jitter = float(os.environ.get(JITTER, "0.01"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + jitter * random.random())  # noqa: S311
