"""Membership inference: can forgotten records be told from records never trained on?

An attack gives each record a score, higher for a more likely member. Letters: m forgotten records
with scores x, n never-seen records with scores y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from lethe._passes import batches, device_of
from lethe.recipe import MapDataset, Recipe
from workers.unlearning.gradients import evaluating

FALSE_POSITIVE_RATES = (0.01, 0.001)


def attack(name: str, forgotten: Tensor, unseen: Tensor) -> Attack:
    """Return the attack that calls a record with a low value (a loss, an entropy) a member.

    Takes the values of the forgotten (m,) and of the never-seen records (n,). Where one is not
    finite or a side is empty, every number of the attack is NaN.
    """
    m, n = len(forgotten), len(unseen)
    x, y = -forgotten.double(), -unseen.double()
    if not (m and n and bool(x.isfinite().all()) and bool(y.isfinite().all())):
        rates = tuple((rate, math.nan) for rate in FALSE_POSITIVE_RATES)
        return Attack(name, m, n, math.nan, math.nan, rates)
    auc, variance = area(x, y)
    rates = tuple((rate, true_positive_rate(x, y, rate)) for rate in FALSE_POSITIVE_RATES)
    error = math.sqrt(max(variance, null_variance(m, n)))
    return Attack(name, m, n, auc, error, rates)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack's success against one model."""

    name: str
    forgotten: int
    """m."""
    unseen: int
    """n."""
    auc: float
    """P(x > y) + ½·P(x = y): one half where the attack tells nothing."""
    standard_error: float
    true_positive_rates: tuple[tuple[float, float], ...]
    """Pairs of an allowed false-positive rate and the true-positive rate reached under it."""

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided normal interval of the AUC, clipped to [0, 1].

        The standard error comes from DeLong's variance, but never from less than the exact
        variance that the AUC has where both sides are distributed alike. DeLong's alone is zero
        for two separable samples of any size, so three records on either side would claim an AUC
        known for certain.
        """
        if not math.isfinite(self.auc):
            return math.nan, math.nan
        half = quantile(confidence) * self.standard_error
        return max(0.0, self.auc - half), min(1.0, self.auc + half)

    def to_json(self, confidence: float) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "name": self.name,
            "forgotten": self.forgotten,
            "unseen": self.unseen,
            "auc": finite_or_none(self.auc),
            "standard_error": finite_or_none(self.standard_error),
            "interval": [finite_or_none(end) for end in self.interval(confidence)],
            "confidence": confidence,
            "true_positive_rates": [
                {"false_positive_rate": allowed, "true_positive_rate": finite_or_none(reached)}
                for allowed, reached in self.true_positive_rates
            ],
            "smallest_false_positive_rate": 1 / self.unseen if self.unseen else None,
        }


def area(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the area under the ROC curve, P(x > y) + ½·P(x = y), and DeLong's variance of it.

    Ranks give each record's placement, the share of the other side below it with ties as one
    half, in O((m + n) log(m + n)) (Sun and Xu 2014, doi 10.1109/LSP.2014.2337313):
    V_x = (rank among all − rank among x) / n, and 1 − V_y likewise. The area is the mean of V_x,
    its variance var(V_x)/m + var(V_y)/n. A side of one record has no sample variance and adds
    none.
    """
    m, n = len(x), len(y)
    ranks = average_ranks(torch.cat([x, y]))  # (m + n,)
    v_x = (ranks[:m] - average_ranks(x)) / n  # (m,)
    v_y = (ranks[m:] - average_ranks(y)) / m  # (n,)
    variance = sum(float(v.var()) / len(v) for v in (v_x, v_y) if len(v) > 1)
    return float(v_x.mean()), variance


def average_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (N,), from 1; equal values share the mean of their ranks."""
    _, group, sizes = torch.unique(values, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0).double()  # the highest rank in each group of equal values
    middle: Tensor = last - (sizes - 1) / 2
    return middle[group]


def null_variance(m: int, n: int) -> float:
    """Return the AUC's exact variance where both sides are distributed alike, without ties.

    It is the variance of the Mann-Whitney statistic over (m·n)²; ties would only lower it.
    """
    return (m + n + 1) / (12 * m * n)


def true_positive_rate(x: Tensor, y: Tensor, allowed: float) -> float:
    """Return the highest share of x above a threshold with at most the allowed share of y above.

    Records of one score fall on the same side. Below 1/n, not one of y may be above.
    """
    # A product such as 0.29 · 100 may fall short of the whole number that it stands for.
    false_positives = math.floor(allowed * len(y) + 1e-9)
    if false_positives >= len(y):
        return 1.0
    threshold = y.sort(descending=True).values[false_positives]
    return float((x > threshold).double().mean())


def quantile(confidence: float) -> float:
    """Return z such that a standard normal lies within ±z at this confidence."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def visible_deviation(m: int, n: int, confidence: float) -> float:
    """Return the smallest |AUC − ½| that an interval of this confidence can tell from nothing."""
    return min(0.5, quantile(confidence) * math.sqrt(null_variance(m, n)))


def records_needed(n: int, room: float, confidence: float) -> int | None:
    """Return the fewest forgotten records with which an interval reaches no further than ``room``.

    Solves z·√((m + n + 1) / (12·m·n)) ≤ room for m; None where n alone makes it impossible.
    """
    allowed = 12 * n * (room / quantile(confidence)) ** 2
    return math.ceil((n + 1) / (allowed - 1)) if allowed > 1 else None


def entropies(recipe: Recipe, model: nn.Module, dataset: MapDataset) -> Tensor | None:
    """Return each record's entropy (N,), float64 on the CPU; None if the recipe knows none."""
    parts = []
    with torch.no_grad(), evaluating(model):
        for batch in batches(recipe, dataset, device_of(model)):
            part = recipe.entropies(model, batch)
            if part is None:
                return None
            parts.append(part.detach().to("cpu", torch.float64))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def finite_or_none(number: float) -> float | None:
    """Return the number, or None where JSON has no word for it."""
    return number if math.isfinite(number) else None
