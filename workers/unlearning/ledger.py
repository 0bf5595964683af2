"""The gradient ledger: Σ ∇ℓ over all the data of a version, kept so that no step needs it again.

Letters: N records of the version, m of them to forget now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from workers.unlearning.errors import StaleLedger


@dataclass(frozen=True, slots=True)
class GradientSum:
    """Sums over the N records that a version retains, at its weights, in eval mode."""

    records: int
    """N: the records to forget now are among them."""
    loss: float
    """Σᵢ ℓᵢ."""
    gradient: Mapping[str, Tensor]
    """Σᵢ ∇ℓᵢ by parameter name, each of the parameter's shape, float64 on the CPU; parameters that
    no loss depends on are left out."""

    def require_fit(self, model: nn.Module, records: int) -> None:
        """Refuse sums that cannot be those of this model over so many records.

        That they were taken at these weights is for whoever keeps the ledger to show: nothing in
        the sums tells.

        Raises:
            StaleLedger: records, names, shapes or finiteness are wrong.

        """
        if self.records != records:
            raise StaleLedger(f"it sums over {self.records} records, and there are {records}")
        shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
        if any(tensor.shape != shapes.get(name) for name, tensor in self.gradient.items()):
            raise StaleLedger("it holds a parameter that the model lacks or shapes differently")
        sums = self.gradient.values()
        if not (math.isfinite(self.loss) and all(bool(t.isfinite().all()) for t in sums)):
            raise StaleLedger("a sum is not finite")

    def without(self, part: GradientSum) -> GradientSum:
        """Return the sums over the N − m records that are left without the m of the part.

        Raises:
            StaleLedger: the part depends on a parameter that the whole does not.

        """
        if not part.gradient.keys() <= self.gradient.keys():
            raise StaleLedger("it lacks a parameter that the records to forget depend on")
        left = {
            name: whole - part.gradient[name] if name in part.gradient else whole
            for name, whole in self.gradient.items()
        }
        return GradientSum(self.records - part.records, self.loss - part.loss, left)
