"""The checks that new weights have to stand; each has one of three outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lethe.policy import Bounds, Outcome
from workers.unlearning.attacks import CALIBRATED, Attack, finite_or_none
from workers.unlearning.measurement import Part
from workers.unlearning.roc import (
    area,
    critical_gap,
    null_variance,
    placements,
    quantile,
    variance_of,
)
from workers.unlearning.utility import Interval, mean_loss_rise, metric_lost
from workers.unlearning.weights import distance, is_finite
from workers.unlearning.wording import NOT_FINITE, explain, lies, margin, natural


def changed(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], parameters: tuple[str, ...]
) -> Check:
    """Demand that the weights moved, and by more than rounding."""
    moved = distance(before, after, parameters)
    finite = is_finite(after) and math.isfinite(moved.relative)
    passed = finite and moved.relative > moved.noise
    if not finite:
        note = "a weight is not finite, or the parent has none other than zero"
    elif passed:
        note = "relative L2 distance of the parameters from the parent's"
    else:
        note = "the parameters are the parent's, up to rounding"
    low = finite_or_none(moved.noise)
    return Check("changed", _either(passed), moved.relative, low, None, None, note)


def equivalent(attack: Attack, bounds: Bounds) -> Check:
    """Demand evidence that nothing is known: the whole interval has to lie within the margin.

    Wholly outside it is evidence to the contrary; anything else shows neither.
    """
    low, high = margin(bounds)
    interval = attack.interval(bounds.confidence)
    outcome: Outcome = "failed"
    if lies(interval, low, high) == "within":
        outcome = "passed"
    elif lies(interval, low, high) == "across":
        outcome = "inconclusive"
    note = explain(attack, interval, bounds)
    return Check(f"forgotten.{attack.name}", outcome, attack.auc, low, high, interval, note)


def unprovoked(attack: Attack, bounds: Bounds) -> Check:
    """Fail on evidence only: an attack that does not know how hard each record is by nature.

    Beside one that does, it has nothing to prove, but an interval wholly outside the margin still
    gives the forgotten records away.
    """
    low, high = margin(bounds)
    interval = attack.interval(bounds.confidence)
    where = lies(interval, low, high)
    passed = where in ("within", "across")
    note = explain(attack, interval, bounds)
    if where == "across":
        note = "no evidence of a leak; the calibrated attack decides"
    return Check(f"forgotten.{attack.name}", _either(passed), attack.auc, low, high, interval, note)


def kept_out(attack: Attack, of_parent: Attack | None, bounds: Bounds) -> Check:
    """Refuse a retrained model only on evidence that it saw the forgotten records after all.

    That training left them out is how it was made, and some records are known well or badly
    without it: those of one person, one class. An AUC far from one half may be theirs. A leak is
    one that is far above, and no lower than the parent's, who did see them.
    """
    low, high = margin(bounds)
    interval = attack.interval(bounds.confidence)
    where = lies(interval, low, high)
    lower = of_parent is not None and attack.auc < of_parent.auc
    passed = where in ("within", "across", "below") or (where == "above" and lower)
    note = natural(attack, interval, bounds) if passed else explain(attack, interval, bounds)
    name = f"forgotten.{attack.name}"
    return Check(name, _either(passed), attack.auc, None, high, interval, note)


def leak_removed(attack: Attack, of_parent: Attack, bounds: Bounds) -> Check:
    """Demand evidence that no more of the parent's leak is left than the bounds allow.

    A margin wide enough for small batches is wider than the leak of many parents, whom a little
    noise would then carry through. With A and A₀ the AUCs of the new and of the parent's weights
    on the same records and c the share that may be left, the value is (A − ½) − c·(A₀ − ½). Its
    variance is DeLong's of the paired placements V − c·V₀, but never less than where nothing moved
    and nothing was known. A parent whose interval does not lie wholly above one half has no leak
    to remove. Without judges, what is left may be the records' own, and is no evidence of failing.
    """
    name, share = "forgotten.removed", bounds.leak_left
    value = (attack.auc - 0.5) - share * (of_parent.auc - 0.5)
    if not math.isfinite(value):
        return Check(name, "failed", math.nan, None, 0.0, (math.nan, math.nan), NOT_FINITE)
    paired = zip(placements(*attack.scores), placements(*of_parent.scores), strict=True)
    variance = variance_of(*(new - share * old for new, old in paired))
    least = (1 - share) ** 2 * null_variance(attack.forgotten, attack.unseen)
    half = quantile(bounds.confidence) * math.sqrt(max(variance, least))
    interval = value - half, value + half
    outcome: Outcome = "passed"
    if of_parent.interval(bounds.confidence)[0] <= 0.5:
        note = "the parent itself shows no leak that could be removed"
    elif interval[1] < 0:
        note = f"less than {share:.0%} of the parent's leak is left"
    elif interval[0] <= 0:
        outcome = "inconclusive"
        note = f"too little power: {share:.0%} of the parent's leak may be left"
    elif attack.name == CALIBRATED:
        outcome = "failed"
        note = f"more than {share:.0%} of the parent's leak is left"
    else:
        outcome = "inconclusive"
        note = "what is left of the parent's AUC is a leak, or the records' own: no judge tells"
    return Check(name, outcome, value, None, 0.0, interval, note)


def distributed_alike(attack: Attack, bounds: Bounds) -> Check:
    """Fail on evidence that the scores are spread differently, though their AUC may be one half.

    Pushing some forgotten records far out and leaving others as they were balances an average. The
    value is D, the largest distance between the distribution functions: the best that a single
    threshold reaches in either direction. Such an attack has an AUC of ½ + D/2, so that D may be
    twice the margin, and its critical value beyond.
    """
    name, high, value = "forgotten.distribution", 2 * bounds.leak_margin, attack.gap
    if not math.isfinite(value):
        return Check(name, "failed", value, None, high, (math.nan, math.nan), NOT_FINITE)
    critical = critical_gap(attack.forgotten, attack.unseen, bounds.confidence)
    interval = max(0.0, value - critical), min(1.0, value + critical)
    passed = interval[0] <= high
    note = "no evidence that one threshold tells forgotten records from never-seen ones"
    if not passed:
        note = "one threshold tells many forgotten records from never-seen ones, whatever the AUC"
    return Check(name, _either(passed), value, None, high, interval, note)


def spread_alike(attack: Attack, bounds: Bounds) -> Check:
    """Fail on evidence that forgotten records lie further out than never-seen ones, to both sides.

    The value is the AUC of an attack whose score is the distance from the never-seen records'
    median score. It sees a half pushed out and a half left long before one threshold does. Beside
    an attack that has shown equivalence an estimate within the margin will do; one beyond it is
    inconclusive, and a whole interval beyond it fails.
    """
    name, (_, high) = "forgotten.spread", margin(bounds)
    if not math.isfinite(attack.auc):
        return Check(name, "failed", math.nan, None, high, (math.nan, math.nan), NOT_FINITE)
    x, y = attack.scores
    middle = y.median()
    value, variance = area((x - middle).abs(), (y - middle).abs())
    least = null_variance(attack.forgotten, attack.unseen)
    half = quantile(bounds.confidence) * math.sqrt(max(variance, least))
    interval = max(0.0, value - half), min(1.0, value + half)
    outcome: Outcome = "passed"
    note = "no evidence that some forgotten records were pushed out and others left"
    if interval[0] > high:
        outcome = "failed"
        note = "some forgotten records lie far out to either side, whatever the AUC"
    elif value > high:
        outcome = "inconclusive"
        note = "too little power: some forgotten records seem to lie far out to either side"
    return Check(name, outcome, value, None, high, interval, note)


def standing_out(attack: Attack, bounds: Bounds) -> Check:
    """Fail if a single forgotten record stands out as a member, whatever all show on average.

    The value is the smallest p-value among the never-seen records, times their number m
    (Bonferroni). No p-value lies below 1/(n + 1): where m of those reach the threshold, nothing
    could ever stand out, and the note says so. The threshold is a fifth of 1 − confidence: among
    batches of which nothing is left, one in a hundred is refused for it at the default, not one in
    twenty.
    """
    # 1 − 0.95 is 0.0500…04, which a p-value at the threshold must not fall below.
    low, found = round((1 - bounds.confidence) / 5, 12), attack.individuals
    name = "standing_out"
    if found is None:
        return Check(name, "failed", math.nan, low, None, None, NOT_FINITE)
    passed = found.bonferroni >= low
    if attack.forgotten * found.resolution >= low:
        note = (
            f"no power: {attack.unseen} never-seen records are too few to single out one of "
            f"{attack.forgotten} forgotten ones"
        )
    elif passed:
        note = "no single forgotten record stands out as a member"
    else:
        note = "a single forgotten record stands out as a member"
    return Check(name, _either(passed), found.bonferroni, low, None, None, note)


def useful(which: str, before: Part, after: Part, bounds: Bounds) -> Check:
    """Demand that the metric lost no more than the budget; its interval is for information."""
    lost = metric_lost(before, after, bounds.confidence)
    rise = mean_loss_rise(before, after, bounds.confidence)
    budget = bounds.utility_budget
    # Two shares such as 0.97 and 0.94 may differ by a hair more than the budget they meet.
    passed = math.isfinite(lost.value) and lost.value <= budget + 1e-9
    note = f"metric lost on {which} data: {before.metric:.6g} before, {after.metric:.6g} after"
    if lost.interval and lost.interval[0] <= budget < lost.interval[1]:
        note += "; the budget lies within the interval"
    details = {
        "interval_from": lost.source,
        "mean_loss_rise": finite_or_none(rise.value),
        "mean_loss_rise_interval": _ends(rise.interval),
    }
    name = f"useful.{which}"
    return Check(name, _either(passed), lost.value, None, budget, lost.interval, note, details)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that new weights must show."""

    name: str
    outcome: Outcome
    value: float
    low: float | None
    """The value must not lie below this, if anything."""
    high: float | None
    """The value must not lie above this, if anything."""
    interval: Interval | None
    note: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values beside the one that counts."""

    @property
    def passed(self) -> bool:
        """Whether it stands: neither failed nor inconclusive."""
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "value": finite_or_none(self.value),
            "low": self.low,
            "high": self.high,
            "interval": _ends(self.interval),
            "note": self.note,
            "details": dict(self.details),
        }


def _either(passed: bool) -> Outcome:
    return "passed" if passed else "failed"


def _ends(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [finite_or_none(end) for end in interval]
