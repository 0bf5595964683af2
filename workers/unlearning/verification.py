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
    records_needed,
    visible_deviation,
)
from workers.unlearning.gradients import evaluating
from workers.unlearning.weights import distance, is_finite


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
    checks = (
        _changed(before_state, after_state, after.parameters),
        *(_forgotten(attack, guarantee, bounds) for attack in after.attacks),
        _useful("retain", before.retain, after.retain, bounds.utility_budget),
        _useful("holdout", before.holdout, after.holdout, bounds.utility_budget),
    )
    passed = bool(after.attacks) and all(check.passed for check in checks)
    return Verdict(passed, checks, _not_shown(after, guarantee, bounds.confidence))


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


def _forgotten(attack: Attack, guarantee: Guarantee, bounds: Bounds) -> Check:
    low, high = 0.5 - bounds.leak_margin, 0.5 + bounds.leak_margin
    start, end = interval = attack.interval(bounds.confidence)
    fits = low <= start and end <= high
    # Written so that a comparison with NaN fails.
    touches = start <= high and end >= low
    return Check(
        f"forgotten.{attack.name}",
        touches if guarantee == "exact" else fits,
        attack.auc,
        low,
        high,
        interval,
        _explain(attack, interval, guarantee, bounds),
    )


def _explain(
    attack: Attack, interval: tuple[float, float], guarantee: Guarantee, bounds: Bounds
) -> str:
    margin = bounds.leak_margin
    if not math.isfinite(attack.auc):
        return "a value is not finite, or there are no records to attack"
    if interval[0] > 0.5 + margin:
        return "leak: the attack tells forgotten records from never-seen ones"
    if interval[1] < 0.5 - margin:
        return (
            "over-forgetting: forgotten records stand out as less known than never-seen ones, "
            "which gives them away as well"
        )
    if interval[0] >= 0.5 - margin and interval[1] <= 0.5 + margin:
        return "the whole interval lies within the margin"
    reliance = "; accepted because training never saw them" if guarantee == "exact" else ""
    return f"too little power: {_missing_power(attack, bounds)}{reliance}"


def _missing_power(attack: Attack, bounds: Bounds) -> str:
    room = bounds.leak_margin - abs(attack.auc - 0.5)
    if room <= 0:
        towards = "a leak" if attack.auc > 0.5 else "over-forgetting"
        return (
            f"the estimate points to {towards}, and {attack.forgotten} forgotten records are too "
            "few to be certain of it"
        )
    needed = records_needed(attack.unseen, room, bounds.confidence)
    if needed is None:
        return f"with {attack.unseen} never-seen records no number of forgotten ones would do"
    # Beside what a larger m would bring, the error may exceed the one under the null.
    needed = max(needed, attack.forgotten + 1)
    return (
        f"for the interval to fit the margin at this AUC, at least {needed} forgotten records "
        f"would be needed beside {attack.unseen} never-seen ones; there are {attack.forgotten}"
    )


def _useful(which: str, before: Part, after: Part, budget: float) -> Check:
    lost = before.metric - after.metric
    # Two shares such as 0.97 and 0.94 may differ by a hair more than the budget they meet.
    passed = math.isfinite(lost) and lost <= budget + 1e-9
    note = f"metric lost on {which} data: {before.metric:.6g} before, {after.metric:.6g} after"
    return Check(f"useful.{which}", passed, lost, None, budget, None, note)


def _not_shown(after: Measurement, guarantee: Guarantee, confidence: float) -> tuple[str, ...]:
    m, n = after.forget.records, after.holdout.records
    sentences = [
        "That the service itself was honest: whoever runs both method and checks can pass both "
        "without erasing anything (arXiv 2408.00929).",
        "That no stronger attack succeeds: these compare forgotten with never-seen records on "
        "average, without reference models, and may miss single records that still stand out.",
        "That forgotten and never-seen records are alike but for the training; where they are "
        "not, the attacks measure that difference too.",
    ]
    if guarantee == "approximate":
        sentences.insert(
            0,
            "Erasure: an approximate method edits weights that were trained on the forgotten "
            "records, and what they left behind may be out of sight of these checks.",
        )
    if m and n:
        sentences.append(
            f"An AUC that differs from one half by less than "
            f"{visible_deviation(m, n, confidence):.3f}: {m} forgotten and {n} never-seen records "
            f"cannot show it at a confidence of {confidence:g}."
        )
        sentences.append(
            f"True-positive rates at false-positive rates below {1 / n:.2g}: {n} never-seen "
            "records do not resolve them."
        )
    if all(attack.name != "entropy" for attack in after.attacks):
        sentences.append("What an attack on entropies would find: it was not run.")
    return tuple(sentences)
