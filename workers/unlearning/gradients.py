"""Mean losses and their gradients over whole datasets, one batch at a time.

Letters: N records of the dataset, B of them in a batch, θ the trainable parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lethe.recipe import MapDataset
from workers.unlearning.contract import Context
from workers.unlearning.errors import NotFinite
from workers.unlearning.ledger import GradientSum


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that take a gradient, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def norm(gradient: Sequence[Tensor | None]) -> float:
    """Return the L2 norm over all tensors at once."""
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradient if g is not None))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, and every module of it back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True, slots=True)
class MeanGradient:
    """The mean loss over a dataset, and its gradient for each trainable parameter in order."""

    loss: float
    gradient: list[Tensor | None]
    """Each of its parameter's shape; None where no loss depends on the parameter."""


def mean_gradient(
    model: nn.Module,
    dataset: MapDataset,
    context: Context,
    report: Callable[[float], None],
) -> MeanGradient:
    """Return (1/N)·Σᵢ ℓᵢ and its gradient (1/N)·Σᵢ ∇_θ ℓᵢ, in eval mode.

    Every record weighs 1/N whatever batch it falls into, and in eval mode no record's loss depends
    on its neighbours, so the batch size changes nothing but the order of summation. ``report``
    gets the fraction of records done after each batch.

    Raises:
        Cancelled: between batches.

    """
    parameters = trainable(model)
    total: list[Tensor | None] = [None] * len(parameters)
    loss, seen, count = 0.0, 0, len(dataset)
    with evaluating(model):
        for batch in context.batches(dataset):
            losses = context.recipe.losses(model, batch)  # (B,)
            # Dividing here and not at the end keeps half-precision sums from overflowing.
            part = torch.autograd.grad(losses.sum() / count, parameters, allow_unused=True)
            total = [_add(old, new) for old, new in zip(total, part, strict=True)]
            loss += float(losses.detach().double().sum()) / count
            seen += len(losses)
            report(seen / count)
    return MeanGradient(loss, total)


def gradient_sum(
    model: nn.Module,
    dataset: MapDataset,
    context: Context,
    report: Callable[[float], None],
) -> GradientSum:
    """Return Σᵢ ℓᵢ and Σᵢ ∇_θ ℓᵢ over the dataset in eval mode, summed over batches in float64.

    ``report`` gets the fraction of records done after each batch.

    Raises:
        Cancelled: between batches.
        NotFinite: a sum is NaN or infinite.

    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    total: dict[str, Tensor] = {}
    loss, seen, count = 0.0, 0, len(dataset)
    with evaluating(model):
        for batch in context.batches(dataset):
            losses = context.recipe.losses(model, batch)  # (B,)
            # The mean and not the sum, which in half precision could overflow.
            part = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
            for name, gradient in zip(named, part, strict=True):
                if gradient is not None:
                    wide = _float64(gradient).mul_(len(losses))
                    total[name] = total[name].add_(wide) if name in total else wide
            loss += float(losses.detach().double().sum())
            seen += len(losses)
            report(seen / count)
    if not (math.isfinite(loss) and math.isfinite(norm(list(total.values())))):
        raise NotFinite("the summed loss, or its gradient,")
    return GradientSum(seen, loss, {name: tensor.cpu() for name, tensor in total.items()})


def mean_of(total: GradientSum, model: nn.Module) -> MeanGradient:
    """Return the sums divided by their number of records, for the model's trainable parameters."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradient = [total.gradient.get(name) for name in names]
    return MeanGradient(
        total.loss / total.records, [g if g is None else g / total.records for g in gradient]
    )


def mean_loss(model: nn.Module, dataset: MapDataset, context: Context) -> float:
    """Return (1/N)·Σᵢ ℓᵢ in eval mode, without a gradient.

    Raises:
        Cancelled: between batches.

    """
    loss = 0.0
    with torch.no_grad(), evaluating(model):
        for batch in context.batches(dataset):
            losses = context.recipe.losses(model, batch)  # (B,)
            loss += float(losses.double().sum())
    return loss / len(dataset)


def _float64(gradient: Tensor) -> Tensor:
    # Apple's GPUs know no float64; there the sum is kept on the CPU.
    place = "cpu" if gradient.device.type == "mps" else gradient.device
    return gradient.to(place, torch.float64, copy=True)


def _add(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    if new is None:
        return old
    # A sum of many half-precision terms would stop growing.
    wide = new.to(torch.promote_types(new.dtype, torch.float32))
    return wide if old is None else old + wide
