"""How much usefulness new weights lost, and how sure that number is.

The records, or the folds of them, are the same for both models, so differences are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from workers.unlearning.measurement import Part
from workers.unlearning.roc import interval_level, quantile

Interval = tuple[float, float]


def metric_lost(before: Part, after: Part, confidence: float) -> Lost:
    """Return how much of the metric was lost, with an interval where one can be had.

    The metric is the recipe's secret. Where it is the mean loss, each record's share in it is
    known; elsewhere F disjoint folds are measured one by one, and Student's t with F − 1 degrees
    of freedom gives the interval. It lies about the loss on the whole set, of which the folds may
    hold a part only: the error then shrinks by the root of that part.
    """
    lost = before.metric - after.metric
    if before.metric_is_loss and after.metric_is_loss:
        return mean_loss_rise(before, after, confidence)
    if before.folds is None or after.folds is None or before.records != after.records:
        return Lost(lost, None, None)
    differences = before.folds - after.folds  # (F,)
    count = len(differences)
    error = float(differences.std()) / math.sqrt(count) * math.sqrt(before.folded / before.records)
    half = student_quantile(confidence, count - 1) * error
    return Lost(lost, (lost - half, lost + half), "folds")


def mean_loss_rise(before: Part, after: Part, confidence: float) -> Lost:
    """Return by how much the mean loss rose, with a paired normal interval."""
    rise = after.mean_loss - before.mean_loss
    if before.losses is None or after.losses is None or before.records != after.records:
        return Lost(rise, None, None)
    return Lost(rise, _paired(after.losses - before.losses, rise, confidence), "records")


def student_quantile(confidence: float, degrees: int) -> float:
    """Return t such that Student's t stays below it at this confidence, at least one half.

    Bisects the distribution function, which is a finite sum for a whole number of degrees.
    """
    level = interval_level(confidence)
    low, high = 0.0, 1.0
    while student_within(high, degrees) < level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, degrees) < level else (low, middle)
    return high


def student_within(t: float, degrees: int) -> float:
    """Return P(|T| ≤ t) for Student's T, t ≥ 0 (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for k in range(degrees // 2):
        total += term
        top = 2 * k + 1 + odd
        term *= square * top / (top + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


@dataclass(frozen=True, slots=True)
class Lost:
    """A number that should be small, its interval if there is one, and what that comes from."""

    value: float
    interval: Interval | None
    source: str | None
    """``folds`` or ``records``."""


def _paired(differences: Tensor, mean: float, confidence: float) -> Interval | None:
    if len(differences) < 2:
        return None
    half = quantile(confidence) * float(differences.std()) / math.sqrt(len(differences))
    return mean - half, mean + half
