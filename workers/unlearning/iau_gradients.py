"""The two mean gradients that an IAU step is made of, with or without a pass over what remains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from lethe.recipe import MapDataset
from workers.unlearning.contract import Context
from workers.unlearning.errors import NotFinite
from workers.unlearning.gradients import (
    MeanGradient,
    gradient_sum,
    mean_gradient,
    mean_of,
    norm,
)
from workers.unlearning.ledger import GradientSum

Source = Literal["full_pass", "ledger"]


def gradients(
    model: nn.Module,
    forget: MapDataset,
    retain: MapDataset,
    context: Context,
    report: Callable[[float], None],
) -> Gradients:
    """Return the mean gradients of both sets, without touching retained data if a ledger is kept.

    ``report`` gets the fraction that is done after each batch.

    Raises:
        Cancelled: between batches.
        NotFinite: a mean loss or its gradient is NaN or infinite.
        StaleLedger: the context's ledger cannot be one of this model and data.

    """
    if context.ledger is not None:
        kept, gone = _from_ledger(model, forget, len(retain), context, context.ledger, report)
        source: Source = "ledger"
    else:
        kept, gone = _from_full_pass(model, forget, retain, context, report)
        source = "full_pass"
    return Gradients(kept, gone, source)


@dataclass(frozen=True, slots=True)
class Gradients:
    """The mean gradients of what remains and of what is to be forgotten."""

    kept: MeanGradient
    gone: MeanGradient
    source: Source

    def combined(self) -> list[Tensor | None]:
        """Return g, the former minus the latter, for each trainable parameter in order."""
        pairs = zip(self.kept.gradient, self.gone.gradient, strict=True)
        return [_minus(kept, gone) for kept, gone in pairs]


def _from_full_pass(
    model: nn.Module,
    forget: MapDataset,
    retain: MapDataset,
    context: Context,
    report: Callable[[float], None],
) -> tuple[MeanGradient, MeanGradient]:
    share = len(retain) / (len(retain) + len(forget))
    kept = mean_gradient(model, retain, context, lambda done: report(share * done))
    _require_finite(kept, "retain")
    gone = mean_gradient(model, forget, context, lambda done: report(share + (1 - share) * done))
    _require_finite(gone, "forget")
    return kept, gone


def _from_ledger(
    model: nn.Module,
    forget: MapDataset,
    retained: int,
    context: Context,
    ledger: GradientSum,
    report: Callable[[float], None],
) -> tuple[MeanGradient, MeanGradient]:
    ledger.require_fit(model, retained + len(forget))
    part = gradient_sum(model, forget, context, report)
    return mean_of(ledger.without(part), model), mean_of(part, model)


def _minus(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if right is None:
        return left
    return -right if left is None else left - right


def _require_finite(mean: MeanGradient, which: str) -> None:
    if not math.isfinite(mean.loss):
        raise NotFinite(f"the mean loss of the {which} set")
    if not math.isfinite(norm(mean.gradient)):
        raise NotFinite(f"the gradient of the {which} set's mean loss")
