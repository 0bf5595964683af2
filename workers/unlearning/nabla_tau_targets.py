"""What the losses of the forget records are raised to.

Letters: m records to forget, B of them in a batch; τ targets, one for each record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

from workers.unlearning.contract import Context
from workers.unlearning.errors import NoReferences


def targets_for(
    option: Literal["auto", "validation", "per_sample"], context: Context, records: int
) -> Targets:
    """Return the targets in effect.

    Raises:
        NoReferences: each record is to have its own target, and not one is known.
        ValueError: the context's targets are not one number for each forget record.

    """
    if option == "validation":
        return Targets(None)
    known = context.known_targets(records)
    if known is None and option == "per_sample":
        raise NoReferences
    return Targets(known)


@dataclass(frozen=True, slots=True)
class Targets:
    """The mean loss of validation data for all records at once, or each record's own."""

    own: Tensor | None
    """τ, (m,), float64, NaN where the validation data's mean stands in; None for that alone."""

    @property
    def need_validation(self) -> bool:
        """Whether the mean loss of the validation data enters."""
        return self.own is None or bool(self.own.isnan().any())

    def given(self, validation_loss: float) -> Ceiling:
        """Return what the losses are raised to while the validation data's mean loss is this."""
        if self.own is None:
            return Ceiling(validation_loss)
        return Ceiling(torch.where(self.own.isnan(), validation_loss, self.own))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the losses are raised to, until the validation loss is taken anew."""

    level: Tensor | float
    """L_val; or τ, (m,)."""

    @property
    def mean(self) -> float | None:
        """The mean of the records' own targets; None where there are none."""
        return float(self.level.mean()) if isinstance(self.level, Tensor) else None

    def term(self, losses: Tensor, positions: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """Return the scalar that is zero at the ceiling, and how far below it each record lies.

        ReLU(L_val − L_f)² of the batch's mean, of which no record has a share; or, where each has
        its own target, (1/size)·Σᵢ ReLU(τᵢ − ℓᵢ) of ``losses``, (B,), at ``positions``, (B,), with
        the summands, (B,), without a gradient. ``size`` counts the batch with those at rest, B
        without them.

        Raises:
            ValueError: the batch's losses are not one for each of its records.

        """
        if not isinstance(self.level, Tensor):
            return relu(self.level - losses.mean()).square(), None
        if losses.shape != positions.shape:
            raise ValueError("a batch's losses are one number for each of its records")
        shortfalls = relu(self.level[positions].to(losses) - losses)  # (B,)
        return shortfalls.sum() / size, shortfalls.detach()
