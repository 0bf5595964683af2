"""What a batch of this size could have shown, whatever it did show."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from lethe.policy import Bounds
from workers.unlearning.attacks import Attack
from workers.unlearning.roc import null_variance, quantile, records_needed

PROBABILITY = 0.8


def power_of(attack: Attack, bounds: Bounds) -> Power | None:
    """Return the power of an attack's batch under the bounds; None without records on a side.

    It takes the error that the AUC has where nothing is known, so that it depends on the sizes
    alone: power read off the estimate itself would only repeat the verdict.
    """
    m, n = attack.forgotten, attack.unseen
    if not (m and n):
        return None
    error = math.sqrt(null_variance(m, n))
    # With nothing to find, it passes this often once the room left and right of ½ is that wide.
    widest = bounds.leak_margin / (quantile(bounds.confidence) + quantile((1 + PROBABILITY) / 2))
    return Power(
        attack=attack.name,
        forgotten=m,
        unseen=n,
        visible_deviation=visible_deviation(m, n, bounds.confidence),
        probability=PROBABILITY,
        passing_deviation=_passing_deviation(error, bounds),
        records_needed=records_needed(n, widest),
    )


def visible_deviation(m: int, n: int, confidence: float) -> float:
    """Return the smallest |AUC − ½| that an interval of this confidence can tell from nothing."""
    return min(0.5, quantile(confidence) * math.sqrt(null_variance(m, n)))


def passing_probability(deviation: float, error: float, bounds: Bounds) -> float:
    """Return how likely an attack whose true AUC lies off one half by this passes equivalence.

    Its whole interval lies within the margin where the estimate lies within ½ ± room, with room
    the margin less the interval's half. The estimate is taken as normal with this standard error.
    """
    room = bounds.leak_margin - quantile(bounds.confidence) * error
    if room <= 0:
        return 0.0
    normal = NormalDist(deviation, error)
    return normal.cdf(room) - normal.cdf(-room)


def _passing_deviation(error: float, bounds: Bounds) -> float | None:
    low, high = 0.0, bounds.leak_margin
    if passing_probability(low, error, bounds) < PROBABILITY:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        passes = passing_probability(middle, error, bounds) >= PROBABILITY
        low, high = (middle, high) if passes else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Power:
    """What the deciding attack can and cannot show with its numbers of records."""

    attack: str
    forgotten: int
    unseen: int
    visible_deviation: float
    """The smallest |AUC − ½| whose interval would have left one half out."""
    probability: float
    passing_deviation: float | None
    """The largest true |AUC − ½| that passes with at least this probability; None where not even
    a perfect result does."""
    records_needed: int | None
    """The fewest forgotten records with which a perfect result passes with this probability beside
    as many never-seen ones; None where no number would do."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)
