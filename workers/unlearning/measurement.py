"""Measure what one model shows on the forgotten, the retained and the never-seen records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lethe._passes import per_example_losses
from lethe.recipe import MapDataset, Recipe
from workers.unlearning.attacks import (
    Attack,
    attack,
    calibrated_attack,
    entropies,
    finite_or_none,
)
from workers.unlearning.gradients import evaluating
from workers.unlearning.references import Judges
from workers.unlearning.weights import is_finite

FOLDS = 10
# As many keep the folds' pass cheap beside the one over everything retained.
MOST_FOLDED = 10_000
# A metric of fewer records to a fold says little.
LEAST_FOLDED = 10 * FOLDS


def measure(
    recipe: Recipe,
    model: nn.Module,
    forget: MapDataset,
    retain: MapDataset,
    holdout: MapDataset,
    confidence: float,
    judges: Judges | None = None,
) -> Measurement:
    """Return what the model shows on the three sets, in eval mode.

    The holdout must be unknown to the method too, or the attacks are judged on what the method was
    fitted to; the judges' expectations come in the order of the forget set and of this holdout.
    Where a weight is not finite the recipe is not asked, since a metric may refuse NaN by raising;
    every number is NaN then. Global generators stay as they are.

    Raises:
        ValueError: the judges judge another number of records.

    """
    parameters = tuple(name for name, _ in model.named_parameters())
    if not is_finite(model.state_dict()):
        of_forget, of_holdout = (torch.full((len(d),), math.nan) for d in (forget, holdout))
        return Measurement(
            _nothing(forget),
            _nothing(retain),
            _nothing(holdout),
            _attacks(of_forget, of_holdout, None, None, judges),
            confidence,
            parameters,
        )
    # A DataLoader draws from the CPU's generator even where it does not shuffle.
    with torch.random.fork_rng(devices=[]), evaluating(model):
        of_forget = per_example_losses(recipe, model, forget)  # (m,)
        of_retain = per_example_losses(recipe, model, retain)
        of_holdout = per_example_losses(recipe, model, holdout)  # (n,)
        forgotten, unseen = (entropies(recipe, model, part) for part in (forget, holdout))
        return Measurement(
            _part(recipe, model, forget, of_forget),
            _part(recipe, model, retain, of_retain, folded=True),
            _part(recipe, model, holdout, of_holdout, folded=True),
            _attacks(of_forget, of_holdout, forgotten, unseen, judges),
            confidence,
            parameters,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """What a model shows on one set of records; NaN where there are none.

    What is kept to pair two models by is not in the JSON.
    """

    records: int
    metric: float
    """The recipe's metric; higher is better."""
    mean_loss: float
    losses: Tensor | None = field(default=None, repr=False, compare=False)
    """Each record's loss, (N,), float64 on the CPU, in the order of the set."""
    folds: Tensor | None = field(default=None, repr=False, compare=False)
    """The metric of disjoint random folds, (FOLDS,), the same ones for each model; None where it
    was not asked for or a fold had none."""
    folded: int = 0
    """How many records the folds hold together."""
    metric_is_loss: bool = False
    """Whether the metric is the negative mean loss, so that each record's share in it is known."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "records": self.records,
            "metric": finite_or_none(self.metric),
            "mean_loss": finite_or_none(self.mean_loss),
        }


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one model shows; of the parent, of its successor, or of a retrained one to compare."""

    forget: Part
    retain: Part
    holdout: Part
    attacks: tuple[Attack, ...]
    confidence: float
    parameters: tuple[str, ...]
    """Names of the model's parameters, which tell them from buffers in a state. Not in the JSON:
    a model may keep one for each person, under that person's sample ID."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "forget": self.forget.to_json(),
            "retain": self.retain.to_json(),
            "holdout": self.holdout.to_json(),
            "attacks": [attack.to_json(self.confidence) for attack in self.attacks],
        }


def _attacks(
    of_forget: Tensor,
    of_holdout: Tensor,
    forgotten: Tensor | None,
    unseen: Tensor | None,
    judges: Judges | None,
) -> tuple[Attack, ...]:
    """Return the attacks on losses, on entropies if there are any, and by judges if there are."""
    attacks = [attack("loss", of_forget, of_holdout)]
    if forgotten is not None and unseen is not None:
        attacks.append(attack("entropy", forgotten, unseen))
    if judges is not None:
        attacks.append(calibrated_attack(of_forget, of_holdout, judges))
    return tuple(attacks)


def _nothing(dataset: MapDataset) -> Part:
    return Part(len(dataset), math.nan, math.nan)


def _part(
    recipe: Recipe, model: nn.Module, dataset: MapDataset, losses: Tensor, *, folded: bool = False
) -> Part:
    size = len(dataset)
    if not size:
        return _nothing(dataset)
    metric, mean = float(recipe.metric(model, dataset)), float(losses.mean())
    if not folded:
        return Part(size, metric, mean)
    if type(recipe).metric is Recipe.metric:
        return Part(size, metric, mean, losses, metric_is_loss=True)
    folds = _folds(recipe, model, dataset)
    return Part(size, metric, mean, losses, folds, min(size, MOST_FOLDED))


def _folds(recipe: Recipe, model: nn.Module, dataset: MapDataset) -> Tensor | None:
    """Return the metric of each of the set's folds (FOLDS,), drawn the same way for each model."""
    size = len(dataset)
    if size < LEAST_FOLDED:
        return None
    # Drawn, since records may come sorted by class, or with the classes in turn.
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:MOST_FOLDED]
    found = []
    for fold in order.tensor_split(FOLDS):
        part: Subset[Any] = Subset(dataset, sorted(fold.tolist()))  # type: ignore[arg-type]
        try:
            found.append(float(recipe.metric(model, part)))
        except Exception:  # noqa: BLE001  # such as that of a metric which needs each class
            return None
    metrics = torch.tensor(found, dtype=torch.float64)
    return metrics if bool(metrics.isfinite().all()) else None
