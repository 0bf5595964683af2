"""Does any single forgotten record stand out as a member?

Letters: m forgotten records with scores x, n never-seen records with scores y, higher for a more
likely member.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NOTABLE = 0.01


def p_values(x: Tensor, y: Tensor) -> Tensor:
    """Return each forgotten record's rank among the never-seen as a p-value, shape (m,).

    p_i = (1 + #{j: y_j ≥ x_i}) / (n + 1). Where a forgotten record is as good as never seen, all
    n + 1 ranks are equally likely, so that P(p_i ≤ a) ≤ a for every a, however small n is.
    """
    n = len(y)
    at_or_above = n - torch.searchsorted(y.sort().values, x)  # (m,)
    return (1 + at_or_above).double() / (n + 1)


def chi_square_survival(half: float, pairs: int) -> float:
    """Return the probability that a χ² variable of 2·pairs degrees of freedom exceeds 2·half.

    For an even number of degrees it is exp(−h)·Σ_{k < pairs} h^k/k!, summed in logarithms, since
    the terms of thousands of records overflow.
    """
    k = torch.arange(pairs, dtype=torch.float64)
    at = torch.tensor(half, dtype=torch.float64)
    terms = torch.xlogy(k, at) - at - torch.lgamma(k + 1)
    return min(1.0, float(terms.logsumexp(dim=0).exp()))


def individuals(x: Tensor, y: Tensor) -> Individuals:
    """Sum up the p-values of the forgotten records; neither side may be empty."""
    p = p_values(x, y)
    m, n = len(x), len(y)
    smallest = float(p.min())
    # Of the n + 1 equally likely p-values, k/(n + 1), those below the notable one.
    below = math.ceil(NOTABLE * (n + 1) - 1e-9) - 1
    return Individuals(
        resolution=1 / (n + 1),
        smallest=smallest,
        bonferroni=min(1.0, m * smallest),
        fisher=chi_square_survival(-float(p.log().sum()), m),
        notable=int((p < NOTABLE - 1e-12).sum()),
        expected=m * below / (n + 1),
    )


@dataclass(frozen=True, slots=True)
class Individuals:
    """What the p-values of all forgotten records come to; none tells which record it is."""

    resolution: float
    """The smallest p-value that there can be, 1/(n + 1)."""
    smallest: float
    bonferroni: float
    """The smallest p-value times m, at most 1: valid however the records depend on each other."""
    fisher: float
    """Fisher's combined p-value. It takes the records as independent; as all are ranked among the
    same never-seen ones, it is too small where m is not far below n. Nothing is decided by it."""
    notable: int
    """How many p-values are below ``NOTABLE``."""
    expected: float
    """How many would be if no record were known."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "smallest_p": self.smallest,
            "smallest_possible_p": self.resolution,
            "bonferroni_p": self.bonferroni,
            "fisher_p": self.fisher,
            "p_below": NOTABLE,
            "records_below": self.notable,
            "records_below_expected": self.expected,
        }
