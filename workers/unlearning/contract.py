"""What every unlearning method takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lethe._passes import batches
from lethe.policy import Guarantee, MethodName
from lethe.recipe import MapDataset, Recipe
from workers.unlearning.errors import Cancelled, EmptySet, NotFinite
from workers.unlearning.ledger import GradientSum


def require_records(**sets: MapDataset) -> None:
    """Raise EmptySet for the first of the named sets that holds no records."""
    for which, dataset in sets.items():
        if len(dataset) == 0:
            raise EmptySet(which)


@dataclass(frozen=True, slots=True)
class Context:
    """What a method needs beside the model and the data."""

    recipe: Recipe
    seed: int
    device: torch.device
    progress: Callable[[str, float], None]
    """Called with the name of the phase and the fraction of it that is done, 0 to 1."""
    cancelled: Callable[[], bool]
    """Asked between batches."""
    targets: Tensor | None = None
    """Mean loss of each forget record under the target references that never saw it, shape (m,),
    float64 on the CPU; NaN where unknown. None for a model without references."""
    ledger: GradientSum | None = None
    """Gradient sum over the forget and the retain set at the parent's weights, if one is kept."""
    largest_batch: int | None = None
    """Most records that a batch may hold, after memory ran out with more; the recipe's own
    ``batch_size`` keeps to it already. None where nothing limits it."""

    def check(self) -> None:
        """Raise Cancelled if the caller no longer wants the result."""
        if self.cancelled():
            raise Cancelled

    def known_targets(self, records: int) -> Tensor | None:
        """Return the targets, (m,), NaN where unknown; None where not one is known.

        Raises:
            NotFinite: a target is infinite.
            ValueError: the targets are not one number for each of the forget records.

        """
        if self.targets is None:
            return None
        if self.targets.shape != (records,):
            raise ValueError("a context's targets are one number for each forget record")
        if bool(self.targets.isinf().any()):
            raise NotFinite("the expected loss of a forget record")
        return None if bool(self.targets.isnan().all()) else self.targets

    def batches(self, dataset: MapDataset) -> Iterator[Any]:
        """Yield the dataset once, in order, in the recipe's batches, on the device.

        Raises:
            Cancelled: before a batch, if the caller no longer wants the result.

        """
        for batch in batches(self.recipe, dataset, self.device):
            self.check()
            yield batch

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed PyTorch's generators of the CPU and the device, and put them back afterwards."""
        accelerators = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=accelerators):
            # torch.manual_seed would also reseed devices that are not put back.
            torch.default_generator.manual_seed(self.seed)
            for accelerator in accelerators:
                with torch.cuda.device(accelerator):
                    torch.cuda.manual_seed(self.seed)
            yield


@dataclass(frozen=True, slots=True)
class Unlearned:
    """What came out of a method, before anybody verified it."""

    state: dict[str, Tensor]
    """Parameters and buffers by name: copies on the CPU, without history, all finite."""
    guarantee: Guarantee
    evidence: Mapping[str, Any]
    """JSON values: the hyperparameters in effect, losses, norms, seconds; no sample IDs."""


class Method(Protocol):
    """An unlearning algorithm."""

    @property
    def name(self) -> MethodName:
        """The name by which a policy asks for it."""

    def unlearn(
        self,
        model: nn.Module,
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,
        context: Context,
    ) -> Unlearned:
        """Return weights that have forgotten the forget set.

        The model comes with the parent's weights, on the context's device, and may be modified.
        On the CPU the same seed gives the same bits; PyTorch's global generators stay as they are.

        Raises:
            UnlearningError: see its tree.

        """
