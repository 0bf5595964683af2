"""How far to step along IAU's direction: until the forget loss is what unseen data would show.

Letters: θ the trainable parameters, g the gradient, d = −g/‖g‖₂ the direction, t ≥ 0 the length,
so that the weights are θ + t·d and t is how far they move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lethe.recipe import MapDataset
from workers.unlearning.contract import Context
from workers.unlearning.errors import NotFinite
from workers.unlearning.gradients import evaluating, mean_loss, norm, trainable

# The first length tried, in ‖θ‖₂; doubled as often as stated it comes to about eight of these, far
# beyond any step that leaves a model useful.
FIRST_LENGTH = 1e-3
DOUBLINGS = 13
# Halvings of the bracket that doubling left, to 1/4096 of the length itself; fewer if the loss
# comes within this share of the rise that was asked for.
BISECTIONS = 12
TOLERANCE = 1e-3
# Of the whole length, by which a step is shortened until the metric is within its budget.
SHORTENINGS = 8
MOST_FORGET_PASSES = 1 + DOUBLINGS + BISECTIONS + 1
"""Forward passes over the forget set: the search, and one more where the step was shortened."""

LimitedBy = Literal["target", "bracket", "utility"]


def find_length(
    loss_at: Callable[[float], float], at_zero: float, target: float, first: float
) -> Found:
    """Return a length at which a loss is at least its target, close to where it gets there.

    ``first`` is doubled until the loss is high enough, and the bracket then bisected: the loss is
    below the target at its low end, and not below it at its high end, which is what is returned.
    So no monotony is asked for. A loss that is not finite counts as too high.
    """
    if at_zero >= target:
        return Found(0.0, at_zero, reached=True)
    low, high = 0.0, first
    loss = loss_at(high)
    for _ in range(DOUBLINGS):
        if not loss < target:
            break
        low, high = high, 2 * high
        loss = loss_at(high)
    if loss < target:
        return Found(high, loss, reached=False)
    for _ in range(BISECTIONS):
        if loss - target <= TOLERANCE * (target - at_zero):
            break
        middle = (low + high) / 2
        at_middle = loss_at(middle)
        if at_middle < target:
            low = middle
        else:
            high, loss = middle, at_middle
    return Found(high, loss, reached=True)


def shorten(is_within: Callable[[float], bool], length: float) -> float:
    """Return the length if it is within the budget, else a shorter one that is; at worst 0.

    Bisection keeps the low end within the budget, the high end outside.
    """
    if is_within(length):
        return length
    low, high = 0.0, length
    for _ in range(SHORTENINGS):
        middle = (low + high) / 2
        if is_within(middle):
            low = middle
        else:
            high = middle
    return low


def target_for(model: nn.Module, records: int, validation: MapDataset, context: Context) -> Target:
    """Return what the mean forget loss should be: that of references, else of validation data.

    Raises:
        Cancelled: between batches.
        NotFinite: it is infinite, or NaN.
        ValueError: the context's targets are not one number for each forget record.

    """
    known = context.known_targets(records)
    if known is not None:
        return _finite(Target(float(known.nanmean()), "references"))
    return _finite(Target(mean_loss(model, validation, context), "validation"))


def calibrate(
    model: nn.Module,
    gradient: Sequence[Tensor | None],
    forget: MapDataset,
    validation: MapDataset,
    at_zero: float,
    utility_budget: float,
    context: Context,
    report: Callable[[float], None],
) -> Calibration:
    """Move the model along −g/‖g‖₂ as far as the forget loss asks and the metric allows.

    ``at_zero`` is the mean forget loss before. ``report`` gets the fraction of the most passes over
    the forget set that may be needed.

    Raises:
        Cancelled: between batches.
        NotFinite: the target, or the metric before the step, is NaN or infinite.
        ValueError: the context's targets are not one number for each forget record.

    """
    target = target_for(model, len(forget), validation, context)
    line = line_along(model, gradient)
    passes = 0

    def loss_at(length: float) -> float:
        nonlocal passes
        line.move_to(length)
        loss = mean_loss(model, forget, context)
        passes += 1
        report(passes / MOST_FORGET_PASSES)
        return loss

    metrics = {0.0: _metric(model, validation, context)}
    if not math.isfinite(metrics[0.0]):
        raise NotFinite("the metric of the validation data before the step")

    def is_within(length: float) -> bool:
        if length not in metrics:
            line.move_to(length)
            metrics[length] = _metric(model, validation, context)
        return metrics[0.0] - metrics[length] <= utility_budget

    if line.is_flat:
        found = Found(0.0, at_zero, reached=at_zero >= target.loss)
    else:
        first = FIRST_LENGTH * (norm(line.start) or 1.0)
        found = find_length(loss_at, at_zero, target.loss, first)
    length = shorten(is_within, found.length)
    forget_loss, limited_by = found.loss, found.limited_by
    if length < found.length:
        forget_loss, limited_by = loss_at(length) if length else at_zero, "utility"
    line.move_to(length)
    report(1.0)
    return Calibration(
        length=length,
        limited_by=limited_by,
        target=target,
        forget_loss=forget_loss,
        forget_passes=passes,
        metric_before=metrics[0.0],
        metric_after=metrics[length],
        met_before=at_zero >= target.loss,
    )


def line_along(model: nn.Module, gradient: Sequence[Tensor | None]) -> Line:
    """Return the line from the model's weights along −g/‖g‖₂; flat where g is zero."""
    parameters = trainable(model)
    size = norm(gradient)
    directions = [
        None if g is None or not size else _wide(g, parameter).div_(-size)
        for g, parameter in zip(gradient, parameters, strict=True)
    ]
    return Line(parameters, [parameter.detach().clone() for parameter in parameters], directions)


@dataclass(frozen=True, slots=True)
class Target:
    """What the mean forget loss should be, and who says so."""

    loss: float
    source: Literal["references", "validation"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the search along the line ended at."""

    length: float
    loss: float
    reached: bool
    """Whether the loss is at least its target."""

    @property
    def limited_by(self) -> LimitedBy:
        """What kept the step from being longer, utility aside."""
        return "target" if self.reached else "bracket"


@dataclass(frozen=True, slots=True)
class Line:
    """The weights θ + t·d of a model, for t ≥ 0."""

    parameters: list[nn.Parameter]
    start: list[Tensor]
    directions: list[Tensor | None]

    @property
    def is_flat(self) -> bool:
        """Whether there is no direction to go."""
        return all(direction is None for direction in self.directions)

    def move_to(self, length: float) -> None:
        """Give the model the weights at this length; at 0 the very bits of the start."""
        with torch.no_grad():
            for parameter, start, d in zip(
                self.parameters, self.start, self.directions, strict=True
            ):
                if d is not None:
                    parameter.copy_(start + length * d if length else start)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The step that was taken."""

    length: float
    limited_by: LimitedBy
    target: Target
    forget_loss: float
    """At this length."""
    forget_passes: int
    metric_before: float
    metric_after: float
    met_before: bool
    """Whether the forget loss met its target without a step, which is then none."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the method's evidence."""
        return {
            "length": self.length,
            "limited_by": self.limited_by,
            "target": {"loss": self.target.loss, "from": self.target.source},
            "target_met_before": self.met_before,
            "metric": {
                "before": self.metric_before,
                "after": self.metric_after if math.isfinite(self.metric_after) else None,
            },
        }


def _wide(gradient: Tensor, parameter: Tensor) -> Tensor:
    # In half precision a unit vector of many numbers is mostly zeros.
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return gradient.to(parameter.device, dtype, copy=True)


def _metric(model: nn.Module, validation: MapDataset, context: Context) -> float:
    context.check()
    with evaluating(model):
        return float(context.recipe.metric(model, validation))


def _finite(target: Target) -> Target:
    if not math.isfinite(target.loss):
        raise NotFinite("the loss that the forget set should have")
    return target
