"""Judge new weights: did they change, did they forget, are they still useful?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lethe.policy import Bounds, Guarantee, Outcome
from workers.unlearning.attacks import CALIBRATED, Attack, decisive
from workers.unlearning.checks import (
    Check,
    changed,
    distributed_alike,
    equivalent,
    kept_out,
    leak_removed,
    spread_alike,
    standing_out,
    unprovoked,
    useful,
)
from workers.unlearning.measurement import Measurement, Part, measure
from workers.unlearning.power import Power, power_of
from workers.unlearning.roc import interval_level
from workers.unlearning.wording import not_shown

__all__ = ["Check", "Measurement", "Part", "Verdict", "measure", "verify"]


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
    # Judges that know nothing of either side judge nothing; what is not finite stays, and fails.
    attacks = [one for one in after.attacks if one.name != CALIBRATED or one.forgotten * one.unseen]
    if guarantee == "exact":
        forgotten = [kept_out(one, of_parent.get(one.name), bounds) for one in attacks]
    else:
        forgotten = list(_forgotten(attacks, of_parent, bounds))
    checks = (
        changed(before_state, after_state, after.parameters),
        *forgotten,
        useful("retain", before.retain, after.retain, bounds),
        useful("holdout", before.holdout, after.holdout, bounds),
    )
    power = power_of(decisive(attacks), bounds)
    questions = not_shown(attacks, power, guarantee, bounds)
    return Verdict(_worst(checks), checks, power, questions, bounds.confidence)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of all checks, what they could have shown, and what they do not show."""

    outcome: Outcome
    checks: tuple[Check, ...]
    power: Power | None
    """Of the attack that decides; None without records on a side."""
    not_shown: tuple[str, ...]
    confidence: float

    @property
    def passed(self) -> bool:
        """Whether every check stands: none failed, and none is inconclusive."""
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is not finite."""
        return {
            "outcome": self.outcome,
            "confidence": self.confidence,
            "interval_level": interval_level(self.confidence),
            "checks": [check.to_json() for check in self.checks],
            "power": self.power and self.power.to_json(),
            "not_shown": list(self.not_shown),
        }


def _forgotten(
    attacks: Sequence[Attack], of_parent: Mapping[str, Attack], bounds: Bounds
) -> Iterator[Check]:
    """Yield the checks of an approximate method: evidence from the attack that decides, or all.

    Without judges nobody knows how hard each record is, and every attack has to fit the margin.
    """
    decides = decisive(attacks)
    judged = decides.name == CALIBRATED
    for one in attacks:
        demanding = one is decides or not judged
        yield equivalent(one, bounds) if demanding else unprovoked(one, bounds)
    parent = of_parent.get(decides.name)
    if bounds.leak_left < 1 and parent is not None and _paired(decides, parent):
        yield leak_removed(decides, parent, bounds)
    yield distributed_alike(decides, bounds)
    yield spread_alike(decides, bounds)
    yield standing_out(decides, bounds)


def _paired(attack: Attack, of_parent: Attack) -> bool:
    return (attack.forgotten, attack.unseen) == (of_parent.forgotten, of_parent.unseen)


def _worst(checks: Sequence[Check]) -> Outcome:
    outcomes = {check.outcome for check in checks}
    ranked: tuple[Outcome, ...] = ("failed", "inconclusive")
    return next((outcome for outcome in ranked if outcome in outcomes), "passed")
