"""Membership inference: can forgotten records be told from records never trained on?

An attack gives each record a score, higher for a more likely member. Letters: m forgotten records
with scores x, n never-seen records with scores y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lethe._passes import batches, device_of
from lethe.recipe import MapDataset, Recipe
from workers.unlearning.gradients import evaluating
from workers.unlearning.individuals import Individuals, individuals
from workers.unlearning.references import Expected, Judges
from workers.unlearning.roc import (
    area,
    interval_level,
    largest_gap,
    null_variance,
    quantile,
    true_positive_rate,
)

FALSE_POSITIVE_RATES = (0.01, 0.001)
CALIBRATED = "calibrated"


def attack(name: str, forgotten: Tensor, unseen: Tensor) -> Attack:
    """Return the attack that calls a record with a low value (a loss, an entropy) a member.

    Takes the values of the forgotten (m,) and of the never-seen records (n,). Where one is not
    finite or a side is empty, every number of the attack is NaN.
    """
    return _attack(name, -forgotten.double(), -unseen.double(), (0, 0))


def calibrated_attack(forgotten: Tensor, unseen: Tensor, judges: Judges) -> Attack:
    """Return the attack on losses from which each record's own difficulty is taken.

    Takes the losses of the forgotten (m,) and of the never-seen records (n,), and brings them to
    the judges' scale first. Records of which the judges know nothing are left out and counted.

    Raises:
        ValueError: the judges judge another number of records.

    """
    sides = ((forgotten, judges.forgotten), (unseen, judges.unseen))
    if any(losses.shape != expected.mean.shape for losses, expected in sides):
        raise ValueError("the judges judge another number of records; measure what they know")
    (of_x, expected_x), (of_y, expected_y) = (_known(*side) for side in sides)
    x = calibrated_scores(rescaled(of_x, of_y, expected_y.mean), expected_x)
    y = calibrated_scores(rescaled(of_y, of_y, expected_y.mean), expected_y)
    return _attack(CALIBRATED, x, y, (len(forgotten) - len(x), len(unseen) - len(y)))


def calibrated_scores(losses: Tensor, expected: Expected) -> Tensor:
    """Return how much better than expected each record is known, μ_i − ℓ_i, shape (N,).

    μ_i is its mean loss under models that never saw it (Watson et al., arXiv 2111.08440): a record
    that is hard for everybody is no less a member for its loss.
    """
    return expected.mean - losses


def rescaled(losses: Tensor, unseen: Tensor, expected: Tensor) -> Tensor:
    """Return losses (N,) on the scale of what is expected of never-seen records, both (n,).

    The map is the increasing one that turns the never-seen records' losses into their expected
    ones, the lowest into the lowest and so on, straight in between. Without it, whoever divides all
    logits by a temperature drowns the differences that a score subtracts from, and hides records
    that any reader of the outputs can bring back; with it, no increasing function of the losses
    changes a score. What is not finite becomes NaN.
    """
    if not len(unseen):
        return losses
    order, onto = unseen.sort().values, expected.sort().values  # (n,) each
    below = torch.searchsorted(order, losses)
    not_above = torch.searchsorted(order, losses, right=True)
    # The middle of equal losses; a loss between two never-seen ones comes midway between them.
    position = ((below + not_above - 1).double() / 2).clamp(0, len(order) - 1)  # (N,)
    low, high = onto[position.floor().long()], onto[position.ceil().long()]
    return torch.where(losses.isfinite(), low + (high - low) * position.frac(), math.nan)


def decisive(attacks: Sequence[Attack]) -> Attack:
    """Return the attack that decides: the calibrated one where there is one, else the first."""
    return next((one for one in attacks if one.name == CALIBRATED), attacks[0])


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack's success against one model."""

    name: str
    forgotten: int
    """m."""
    unseen: int
    """n."""
    left_out: tuple[int, int]
    """Forgotten and never-seen records that could not be scored."""
    auc: float
    """P(x > y) + ½·P(x = y): one half where the attack tells nothing."""
    standard_error: float
    """The root of DeLong's variance, but never of less than the exact variance that the AUC has
    where both sides are distributed alike. DeLong's alone is zero for two separable samples of any
    size, so three records on either side would claim an AUC known for certain."""
    true_positive_rates: tuple[tuple[float, float], ...]
    """Pairs of an allowed false-positive rate and the true-positive rate reached under it."""
    gap: float
    """The largest distance between the distribution functions of the two sides' scores."""
    individuals: Individuals | None
    """What single records show; None where there is nothing finite to show."""
    scores: tuple[Tensor, Tensor] = field(repr=False, compare=False)
    """x (m,) and y (n,), float64 on the CPU, to pair two models by. Not in the JSON."""

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the normal interval of the AUC at level 2·confidence − 1, clipped to [0, 1].

        It is the one that goes with one-sided tests at this confidence: see ``interval_level``.
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
            "left_out": {"forgotten": self.left_out[0], "unseen": self.left_out[1]},
            "auc": finite_or_none(self.auc),
            "standard_error": finite_or_none(self.standard_error),
            "interval": [finite_or_none(end) for end in self.interval(confidence)],
            "interval_level": interval_level(confidence),
            "true_positive_rates": [
                {"false_positive_rate": allowed, "true_positive_rate": finite_or_none(reached)}
                for allowed, reached in self.true_positive_rates
            ],
            "smallest_false_positive_rate": 1 / self.unseen if self.unseen else None,
            "largest_gap": finite_or_none(self.gap),
            "individuals": self.individuals and self.individuals.to_json(),
        }


def _attack(name: str, x: Tensor, y: Tensor, left_out: tuple[int, int]) -> Attack:
    m, n = len(x), len(y)
    if not (m and n and bool(x.isfinite().all()) and bool(y.isfinite().all())):
        rates = tuple((rate, math.nan) for rate in FALSE_POSITIVE_RATES)
        nothing = math.nan
        return Attack(name, m, n, left_out, nothing, nothing, rates, nothing, None, (x, y))
    auc, variance = area(x, y)
    return Attack(
        name=name,
        forgotten=m,
        unseen=n,
        left_out=left_out,
        auc=auc,
        standard_error=math.sqrt(max(variance, null_variance(m, n))),
        true_positive_rates=tuple(
            (rate, true_positive_rate(x, y, rate)) for rate in FALSE_POSITIVE_RATES
        ),
        gap=largest_gap(x, y),
        individuals=individuals(x, y),
        scores=(x, y),
    )


def _known(losses: Tensor, expected: Expected) -> tuple[Tensor, Expected]:
    known = expected.mean.isfinite()
    return losses[known].double(), Expected(expected.mean[known], expected.spread[known])


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
