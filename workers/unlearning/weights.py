"""Copies of a model's weights, and how far two of them lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workers.unlearning.errors import NotFinite


def state_on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's parameters and buffers on the CPU, without history."""
    return {name: t.detach().to("cpu", copy=True) for name, t in model.state_dict().items()}


def is_finite(state: Mapping[str, Tensor]) -> bool:
    """Return whether no tensor of the state holds a NaN or an infinity."""
    # isfinite knows no dtype of one byte; none of those loses a NaN in float32.
    return all(bool((t.float() if t.itemsize == 1 else t).isfinite().all()) for t in state.values())


def finite_state(model: nn.Module) -> dict[str, Tensor]:
    """Return ``state_on_cpu(model)``.

    Raises:
        NotFinite: a weight is NaN or infinite.

    """
    state = state_on_cpu(model)
    if not is_finite(state):
        raise NotFinite("a weight of the unlearned model")
    return state


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the parameters θ' lie from θ, in the L2 norm over all of them at once."""

    norm: float
    """‖θ' − θ‖₂."""
    relative: float
    """‖θ' − θ‖₂ / ‖θ‖₂; NaN where θ is zero."""
    noise: float
    """The largest relative distance that rounding alone may explain."""


def distance(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], parameters: Iterable[str]
) -> Distance:
    """Return the distance over the named floating-point parameters, in float64.

    Rounding to nearest moves a number x by at most ½·ε·|x|. Two roundings, such as a number format
    left and entered again, so move no parameter by more than ε·|x|, with ε that of its own dtype;
    ‖ε·θ‖₂ / ‖θ‖₂ is therefore the noise, and one unit in the last place everywhere stays below it.
    """
    moved = size = noise = 0.0  # squared norms
    for name in parameters:
        if not before[name].is_floating_point():
            continue
        old, new = before[name].detach().cpu().double(), after[name].detach().cpu().double()
        square = float(old.square().sum())
        moved += float((new - old).square().sum())
        size += square
        noise += torch.finfo(before[name].dtype).eps ** 2 * square
    if not size > 0:
        return Distance(math.sqrt(moved), math.nan, math.nan)
    return Distance(math.sqrt(moved), math.sqrt(moved / size), math.sqrt(noise / size))
