"""How well scores tell two samples apart: ROC areas, their variances, and distances.

Letters: m scores x of one side, n scores y of the other.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor


def area(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the area under the ROC curve, P(x > y) + ½·P(x = y), and DeLong's variance of it.

    The area is the mean of V_x, its variance var(V_x)/m + var(V_y)/n. A side of one record has no
    sample variance and adds none.
    """
    v_x, v_y = placements(x, y)
    return float(v_x.mean()), variance_of(v_x, v_y)


def placements(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each record the share of the other side that it is on the right side of.

    V_x (m,) counts the y below, V_y (n,) the x above, ties as one half; both have the area as
    their mean. Ranks give them in O((m + n) log(m + n)) (Sun and Xu 2014, doi
    10.1109/LSP.2014.2337313): V_x = (rank among all − rank among x) / n, and 1 − V_y likewise.
    """
    m, n = len(x), len(y)
    ranks = average_ranks(torch.cat([x, y]))  # (m + n,)
    v_x = (ranks[:m] - average_ranks(x)) / n  # (m,)
    v_y = 1 - (ranks[m:] - average_ranks(y)) / m  # (n,)
    return v_x, v_y


def variance_of(*sides: Tensor) -> float:
    """Return the variance of a sum of means, one for each independent sample of values."""
    return sum(float(side.var()) / len(side) for side in sides if len(side) > 1)


def average_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (N,), from 1; equal values share the mean of their ranks."""
    _, group, sizes = torch.unique(values, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0).double()  # the highest rank in each group of equal values
    middle: Tensor = last - (sizes - 1) / 2
    return middle[group]


def null_variance(m: int, n: int) -> float:
    """Return the area's exact variance where both sides are distributed alike, without ties.

    It is the variance of the Mann-Whitney statistic over (m·n)²; ties would only lower it.
    """
    return (m + n + 1) / (12 * m * n)


def records_needed(n: int, error: float) -> int | None:
    """Return the fewest m whose area has no more than this standard error under the null.

    Solves √((m + n + 1) / (12·m·n)) ≤ error for m; None where n alone makes it impossible.
    """
    allowed = 12 * n * error**2
    return math.ceil((n + 1) / (allowed - 1)) if allowed > 1 else None


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


def largest_gap(x: Tensor, y: Tensor) -> float:
    """Return the largest distance D between the two empirical distribution functions.

    It is Kolmogorov and Smirnov's two-sample statistic, in either direction; for an attack, the
    best that one threshold reaches as true-positive less false-positive rate.
    """
    points = torch.cat([x, y])
    below_x, below_y = (
        torch.searchsorted(side.sort().values, points, right=True).double() / len(side)
        for side in (x, y)
    )
    return float((below_x - below_y).abs().max())


def critical_gap(m: int, n: int, confidence: float) -> float:
    """Return the D that two samples of one distribution exceed at most once in 1/(1 − confidence).

    It is √(½·ln(2/(1 − confidence)) · (m + n)/(m·n)), Smirnov's limit without its later terms,
    which would only lower it.
    """
    return math.sqrt(math.log(2 / (1 - confidence)) / 2 * (m + n) / (m * n))


def quantile(confidence: float) -> float:
    """Return z such that a standard normal stays below z at this confidence: one-sided."""
    return NormalDist().inv_cdf(confidence)


def interval_level(confidence: float) -> float:
    """Return the level of the two-sided interval that goes with a one-sided test.

    Equivalence is two one-sided tests (Schuirmann 1987, doi 10.1007/BF01068419): both reject at
    this confidence exactly where the two-sided interval at 2·confidence − 1 lies within the margin.
    """
    # 2·0.95 − 1 is 0.8999…, which nobody wants to read.
    return round(2 * confidence - 1, 12)
