"""Recipes with one thing wrong, or several, and what the checks say of them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lethe.recipe import MapDataset, Recipe
from workers.recipe_checks import check_recipe
from workers.recipes import Problem

MARK = "patient-7f3a-marked"
"""Part of every sample ID below; must not be part of any message."""


CPU = torch.device("cpu")
RECORDS = 12


def records(count: int = RECORDS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(3, generator=generator), torch.randn((), generator=generator))
        for _ in range(count)
    ]


class Tiny(Recipe):
    """Linear regression with a batch norm, so that eval mode matters; nothing wrong with it."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))

    def training_data(self) -> MapDataset:
        return records()

    def sample_ids(self) -> list[Any]:
        return [f"{MARK}-{index}" for index in range(RECORDS)]

    def holdout_data(self) -> MapDataset:
        return records(5)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch[0]) - batch[1]) ** 2


def state_of(recipe: Recipe | None = None) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in (recipe or Tiny()).build_model().state_dict().items()}


def variant(**methods: Any) -> Recipe:
    """Return a Tiny with some methods replaced."""
    return type("Variant", (Tiny,), {"__module__": __name__, **methods})()


def problems(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> list[Problem]:
    """Check, and hold every message to the privacy rule whatever the test is about."""
    found = check_recipe(recipe, state_of() if state is None else state, CPU)
    assert MARK not in json.dumps([problem.as_json() for problem in found])
    return found


def codes(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> list[str]:
    return [problem.code for problem in problems(recipe, state)]


def message(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> str:
    (problem,) = problems(recipe, state)
    return problem.message


def failing(*_: Any) -> Any:
    raise KeyError(f"{MARK}-3")


def ids(**changed: Any) -> Callable[[Any], list[Any]]:
    """Return a sample_ids method in which some positions, ``at3=…``, hold something else."""
    whole: list[Any] = [f"{MARK}-{index}" for index in range(RECORDS)]
    for position, value in changed.items():
        whole[int(position.removeprefix("at"))] = value
    return lambda _: whole


def squared(_: Recipe, model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2
