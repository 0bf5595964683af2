"""Losses, entropies and metrics that no method could work with are named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lethe.recipe import Recipe
from tests.workers.faulty_recipes import Tiny, codes, failing, squared, state_of, variant


@pytest.mark.parametrize(
    ("code", "losses"),
    [
        ("losses.run", failing),
        ("losses.type", lambda *a: squared(*a).tolist()),
        ("losses.shape", lambda *a: squared(*a).mean()),
        ("losses.shape", lambda *a: squared(*a).unsqueeze(1)),
        ("losses.shape", lambda *a: squared(*a).squeeze()),
        ("losses.finite", lambda *a: squared(*a) + torch.inf),
        ("losses.gradient", lambda *a: squared(*a).detach()),
        ("losses.gradient", lambda *a: a[2][0].sum(dim=1).requires_grad_()),
        ("losses.gradient_finite", lambda *a: (squared(*a) * 0).sqrt()),
        ("losses.companions", lambda *a: squared(*a) / len(a[2][1])),
        ("losses.companions", lambda *a: squared(*a) / squared(*a).detach().sum()),
        ("losses.run", lambda _, m, b: squared(_, m.train(), b)),
        ("losses.companions", lambda *a: F.dropout(squared(*a) + 1, 0.5)),
    ],
)
def test_a_fault_of_the_losses_is_named_alone(code: str, losses: Any) -> None:
    torch.manual_seed(0)
    assert codes(variant(losses=losses, metric=lambda *_: 1.0)) == [code]


def test_losses_that_are_integers_have_no_gradient_either() -> None:
    recipe = variant(losses=lambda *a: squared(*a).long(), metric=lambda *_: 1.0)
    assert codes(recipe) == ["losses.gradient", "losses.dtype"]


def test_a_loss_that_cannot_be_differentiated_is_named() -> None:
    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *__: Tensor) -> Any:
            failing()

    recipe = variant(losses=lambda *a: OneWay.apply(squared(*a)))
    assert codes(recipe) == ["losses.backward"]


def test_a_model_without_trainable_parameters_is_named() -> None:
    recipe = variant(build_model=lambda _: Tiny().build_model().requires_grad_(False))
    assert codes(recipe) == ["losses.gradient"]


@pytest.mark.parametrize(
    ("dtype", "relative_error", "expected"),
    [
        (torch.float64, 1e-4, []),  # as the rounding of TF32
        (torch.float64, 2e-2, ["losses.companions"]),
        (torch.bfloat16, 2e-2, []),  # three of its roundings
        (torch.bfloat16, 5e-1, ["losses.companions"]),
    ],
)
def test_rounding_is_not_taken_for_companions(
    dtype: torch.dtype, relative_error: float, expected: list[str]
) -> None:
    def losses(_: Recipe, model: nn.Module, batch: Any) -> Tensor:
        exact = (model(batch[0].to(dtype)) - batch[1].to(dtype)) ** 2 + 10
        return exact * (1 + relative_error) if len(exact) == 1 else exact

    recipe = variant(build_model=lambda _: Tiny().build_model().to(dtype), losses=losses)
    assert codes(recipe, state_of(recipe)) == expected


@pytest.mark.parametrize(
    ("code", "entropies"),
    [
        ("entropies.run", failing),
        ("entropies.type", lambda *_: 0.5),
        ("entropies.shape", lambda *a: torch.zeros(len(a[2][1]), 1)),
        ("entropies.dtype", lambda *a: torch.zeros(len(a[2][1]), dtype=torch.int64)),
        ("entropies.finite", lambda *a: torch.full((len(a[2][1]),), torch.nan)),
    ],
)
def test_a_fault_of_the_entropies_is_named_alone(code: str, entropies: Any) -> None:
    assert codes(variant(entropies=entropies)) == [code]


def test_entropies_of_the_right_shape_are_fine() -> None:
    assert codes(variant(entropies=lambda *a: torch.ones(len(a[2][1])))) == []


@pytest.mark.parametrize(
    ("code", "metric"),
    [
        ("metric.run", failing),
        ("metric.run", lambda *_: None),
        ("metric.finite", lambda *_: float("nan")),
        ("metric.finite", lambda *_: float("-inf")),
    ],
)
def test_a_fault_of_the_metric_is_named_alone(code: str, metric: Any) -> None:
    assert codes(variant(metric=metric)) == [code]
