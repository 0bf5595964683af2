"""Judge new weights: did they change, did they forget, are they still useful?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lethe._passes import per_example_losses
from lethe.policy import Bounds, Guarantee
from lethe.recipe import MapDataset, Recipe
from workers.unlearning.attacks import (
    Attack,
    attack,
    entropies,
    finite_or_none,
)
from workers.unlearning.gradients import evaluating
from workers.unlearning.weights import distance, is_finite
from workers.unlearning.wording import explain, margin, not_shown


@dataclass(frozen=True, slots=True)
class Part:
    """What a model shows on one set of records; NaN where there are none."""

    records: int
    metric: float
    """The recipe's metric; higher is better."""
    mean_loss: float

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


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that new weights must show."""

    name: str
    passed: bool
    value: float
    low: float | None
    """The value must not lie below this, if anything."""
    high: float | None
    """The value must not lie above this, if anything."""
    interval: tuple[float, float] | None
    note: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        interval = self.interval and [finite_or_none(end) for end in self.interval]
        return {**asdict(self), "value": finite_or_none(self.value), "interval": interval}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of all checks, and what they do not show."""

    passed: bool
    checks: tuple[Check, ...]
    not_shown: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "passed": self.passed,
            "checks": [check.to_json() for check in self.checks],
            "not_shown": list(self.not_shown),
        }


def measure(
    recipe: Recipe,
    model: nn.Module,
    forget: MapDataset,
    retain: MapDataset,
    holdout: MapDataset,
    confidence: float,
) -> Measurement:
    """Return what the model shows on the three sets, in eval mode.

    The holdout must be unknown to the method too, or the attacks are judged on what the method was
    fitted to. Where a weight is not finite the recipe is not asked, since a metric may refuse
    NaN by raising; every number is NaN then. Global generators stay as they are.
    """
    parameters = tuple(name for name, _ in model.named_parameters())
    if not is_finite(model.state_dict()):
        of_forget, of_holdout = (torch.full((len(d),), math.nan) for d in (forget, holdout))
        return Measurement(
            Part(len(forget), math.nan, math.nan),
            Part(len(retain), math.nan, math.nan),
            Part(len(holdout), math.nan, math.nan),
            (attack("loss", of_forget, of_holdout),),
            confidence,
            parameters,
        )
    # A DataLoader draws from the CPU's generator even where it does not shuffle.
    with torch.random.fork_rng(devices=[]), evaluating(model):
        of_forget = per_example_losses(recipe, model, forget)  # (m,)
        of_retain = per_example_losses(recipe, model, retain)
        of_holdout = per_example_losses(recipe, model, holdout)  # (n,)
        attacks = [attack("loss", of_forget, of_holdout)]
        forgotten, unseen = (entropies(recipe, model, part) for part in (forget, holdout))
        if forgotten is not None and unseen is not None:
            attacks.append(attack("entropy", forgotten, unseen))
        return Measurement(
            _part(recipe, model, forget, of_forget),
            _part(recipe, model, retain, of_retain),
            _part(recipe, model, holdout, of_holdout),
            tuple(attacks),
            confidence,
            parameters,
        )


def verify(
    *,
    before_state: Mapping[str, Tensor],
    after_state: Mapping[str, Tensor],
    before: Measurement,
    after: Measurement,
    guarantee: Guarantee,
    bounds: Bounds,
) -> Verdict:
    """Hold the new weights against the parent's; whatever is not finite fails its check."""
    of_parent = {attack.name: attack for attack in before.attacks}
    checks = (
        _changed(before_state, after_state, after.parameters),
        *(
            _kept_out(attack, of_parent.get(attack.name), bounds)
            if guarantee == "exact"
            else _forgotten(attack, bounds)
            for attack in after.attacks
        ),
        _useful("retain", before.retain, after.retain, bounds.utility_budget),
        _useful("holdout", before.holdout, after.holdout, bounds.utility_budget),
    )
    passed = bool(after.attacks) and all(check.passed for check in checks)
    return Verdict(passed, checks, not_shown(after.attacks, guarantee, bounds.confidence))


def _part(recipe: Recipe, model: nn.Module, dataset: MapDataset, losses: Tensor) -> Part:
    if not len(dataset):
        return Part(0, math.nan, math.nan)
    return Part(len(dataset), float(recipe.metric(model, dataset)), float(losses.mean()))


def _changed(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], parameters: tuple[str, ...]
) -> Check:
    moved = distance(before, after, parameters)
    finite = is_finite(after) and math.isfinite(moved.relative)
    passed = finite and moved.relative > moved.noise
    if not finite:
        note = "a weight is not finite, or the parent has none other than zero"
    elif passed:
        note = "relative L2 distance of the parameters from the parent's"
    else:
        note = "the parameters are the parent's, up to rounding"
    return Check("changed", passed, moved.relative, finite_or_none(moved.noise), None, None, note)


def _forgotten(attack: Attack, bounds: Bounds) -> Check:
    """Demand evidence: the whole interval has to lie within the margin."""
    low, high = margin(bounds)
    start, end = interval = attack.interval(bounds.confidence)
    fits = low <= start and end <= high
    note = explain(attack, interval, bounds)
    return Check(f"forgotten.{attack.name}", fits, attack.auc, low, high, interval, note)


def _kept_out(attack: Attack, of_parent: Attack | None, bounds: Bounds) -> Check:
    """Refuse a retrained model only on evidence that it saw the forgotten records after all.

    That training left them out is how it was made, and some records are known well or badly
    without it: those of one person, one class. An AUC far from one half may be theirs. A leak is
    one that is far above, and no lower than the parent's, who did see them.
    """
    low, high = margin(bounds)
    start, end = interval = attack.interval(bounds.confidence)
    natural = of_parent is not None and attack.auc < of_parent.auc
    # Written so that a comparison with NaN fails.
    passed = start <= high or (start > high and natural)
    if not passed:
        note = explain(attack, interval, bounds)
    elif low <= start and end <= high:
        note = "the whole interval lies within the margin"
    elif start > high or end < low:
        note = (
            "the forgotten records differ from never-seen ones in themselves; accepted because "
            "training never saw them"
        )
    else:
        note = explain(attack, interval, bounds) + "; accepted because training never saw them"
    return Check(f"forgotten.{attack.name}", passed, attack.auc, None, high, interval, note)


def _useful(which: str, before: Part, after: Part, budget: float) -> Check:
    lost = before.metric - after.metric
    # Two shares such as 0.97 and 0.94 may differ by a hair more than the budget they meet.
    passed = math.isfinite(lost) and lost <= budget + 1e-9
    note = f"metric lost on {which} data: {before.metric:.6g} before, {after.metric:.6g} after"
    return Check(f"useful.{which}", passed, lost, None, budget, None, note)
