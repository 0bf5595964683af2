"""Which records of ∇τ sit out for a while: those that have next to nothing left to rise.

Letters: m records to forget, B of them in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Container

import torch
from torch import Tensor

EPOCHS = 2
"""How long a record rests before it comes up again."""
LITTLE = 0.1
"""A record that lacks at most this share of the first epoch's mean shortfall hardly pulls at all.

A share and not an amount, since a loss is in the recipe's own unit.
"""


class Rest:
    """Who rests in the epoch under way; in the first one nobody does."""

    def __init__(self, records: int) -> None:
        """Take the number of records, m, which go by their positions from here on."""
        self._resting: frozenset[int] = frozenset()
        self._shortfalls = torch.full((records,), math.inf)  # (m,), of this epoch; inf: not met
        self._wakes = torch.zeros(records, dtype=torch.int64)  # (m,), the epoch of the next visit
        self._epoch = 0
        self._little: float | None = None

    @property
    def resting(self) -> Container[int]:
        """The positions of the records that rest."""
        return self._resting

    @property
    def share(self) -> float:
        """Return the share of the records that rest."""
        return len(self._resting) / len(self._wakes)

    def met(self, positions: Tensor, shortfalls: Tensor) -> None:
        """Remember how far below their targets records were, ReLU(τᵢ − ℓᵢ), when they came up."""
        self._shortfalls[positions] = shortfalls.to(self._shortfalls)

    def end_epoch(self) -> None:
        """Let those that lacked little rest, and wake those whose time is over."""
        self._epoch += 1
        if self._little is None:
            self._little = LITTLE * float(self._shortfalls.mean())
        self._wakes[self._shortfalls <= self._little] = self._epoch + EPOCHS
        self._shortfalls.fill_(math.inf)
        self._resting = frozenset((self._wakes > self._epoch).nonzero().flatten().tolist())
