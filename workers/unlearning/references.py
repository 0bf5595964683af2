"""What is expected of records that a model never saw, by reference models that never saw them.

References come in pairs: one is trained on a random half of the data, the other on the rest, so
that each record is unseen by exactly one of them. Pairs of even number give targets, the others
judge, so that nothing is judged by what it was fitted to.

Letters: N records of a set, m forgotten ones, n never-seen ones.
"""

from __future__ import annotations

import gc
import hashlib
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lethe.recipe import MapDataset
from workers.unlearning.contract import Context
from workers.unlearning.errors import EmptySet, NotFinite
from workers.unlearning.gradients import evaluating

Group = Literal["target", "judge"]

PHASE = "reference"


@dataclass(frozen=True, slots=True)
class Expected:
    """The losses of records under the references of one group that never saw them."""

    mean: Tensor
    """Shape (N,), float64 on the CPU; NaN where no reference of the group left the record out."""
    spread: Tensor
    """Sample standard deviation, shape (N,), float64; NaN where fewer than two left it out."""


@dataclass(frozen=True, slots=True)
class Judges:
    """What the judging group expects of the records that an attack looks at."""

    forgotten: Expected
    """Of the forgotten records, (m,), in the order of the forget set."""
    unseen: Expected
    """Of the never-seen records, (n,), in the order of the judging half of the holdout."""


@dataclass(frozen=True, slots=True)
class Half:
    """What one reference sees and what it does not, as indices in rising order."""

    trained_on: list[int]
    left_out: list[int]
    """The other records that are still retained."""
    holdout: list[int]
    """The holdout records that are counted for it: no reference sees any of them, but so each has
    as many references as a training record."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one reference showed on the records that it never saw; the reference is gone."""

    half: Half
    training: Tensor
    """Losses of the records left out, float64 on the CPU, in their order."""
    holdout: Tensor
    """Losses of the holdout records, likewise."""
    weights_digest: str


def group_of(index: int) -> Group:
    """Return what the reference of this index is for."""
    return "target" if index // 2 % 2 == 0 else "judge"


def half_of(seed: int, index: int, kept: Sequence[int], records: int, holdout: int) -> Half:
    """Return the half of the reference of this index, in the set of references of this seed.

    The halves are drawn over all N ``records`` that the model was registered with, and those that
    are not ``kept`` are left out afterwards: which references never see a record does not depend
    on what is forgotten between one reference and the next.
    """
    pair, second = divmod(index, 2)
    sees = _side(seed, "training", pair, records, second)
    spares = _side(seed, "holdout", pair, holdout, second)
    return Half(
        trained_on=[i for i in kept if sees[i]],
        left_out=[i for i in kept if not sees[i]],
        holdout=[i for i, spared in enumerate(spares) if spared],
    )


def train_reference(
    index: int,
    training: MapDataset,
    holdout: MapDataset,
    kept: Sequence[int],
    context: Context,
    digest: Callable[[Mapping[str, Tensor]], str],
) -> Shown:
    """Train one reference on its half, take its losses on what it never saw, and destroy it.

    The context's seed is that of the set of references; ``kept`` are the indices of the training
    records that are still retained, in rising order. Only ``digest`` gets to see the weights, to
    give them a name. The same arguments give the same losses on the CPU, and PyTorch's global
    generators stay as they are.

    Raises:
        lethe.recipe.CannotTrain: the recipe has no ``train``.
        Cancelled: before or after training, or between batches.
        EmptySet: no record of the half is retained.
        NotFinite: a loss is NaN or infinite.

    """
    half = half_of(context.seed, index, kept, len(training), len(holdout))
    if not half.trained_on:
        raise EmptySet("training")
    own = replace(context, seed=_derived(context.seed, "weights", index))
    own.check()
    own.progress(PHASE, 0.0)
    with own.seeded():
        model = own.recipe.build_model().to(own.device)
        weights = [weakref.ref(tensor) for tensor in (*model.parameters(), *model.buffers())]
        shown = _show(half, model, training, holdout, own, digest)
        del model
        _destroy(weights, own.device)
        return shown


def expected_of(
    counts: Sequence[int], means: Sequence[float], squares: Sequence[float]
) -> Expected:
    """Return what is expected of N records, by the number, the mean and Σ(ℓ − mean)² of losses."""
    count, mean, square = (
        torch.tensor(values, dtype=torch.float64) for values in (counts, means, squares)
    )  # (N,)
    nothing = torch.full_like(mean, math.nan)
    return Expected(
        mean=torch.where(count > 0, mean, nothing),
        spread=torch.where(count > 1, (square / (count - 1)).sqrt(), nothing),
    )


def _show(
    half: Half,
    model: nn.Module,
    training: MapDataset,
    holdout: MapDataset,
    context: Context,
    digest: Callable[[Mapping[str, Tensor]], str],
) -> Shown:
    context.recipe.train(model, _subset(training, half.trained_on), context.seed)
    context.check()
    of_training = _losses(model, _subset(training, half.left_out), context)
    of_holdout = _losses(model, _subset(holdout, half.holdout), context)
    context.progress(PHASE, 1.0)
    return Shown(half, of_training, of_holdout, digest(model.state_dict()))


def _destroy(weights: Sequence[weakref.ref[Tensor]], device: torch.device) -> None:
    # A model or an optimizer that holds itself in a cycle outlives its last use.
    if any(tensor() is not None for tensor in weights):
        gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _losses(model: nn.Module, dataset: MapDataset, context: Context) -> Tensor:
    parts = [torch.empty(0, dtype=torch.float64)]
    with torch.no_grad(), evaluating(model):
        for batch in context.batches(dataset):
            losses = context.recipe.losses(model, batch)  # (B,)
            parts.append(losses.to("cpu", torch.float64))
    whole = torch.cat(parts)  # (N,)
    if not whole.isfinite().all():
        raise NotFinite("a loss under a reference model")
    return whole


def _side(seed: int, purpose: str, pair: int, count: int, second: int) -> list[bool]:
    """Return, of each of so many records, whether it falls to the first or second of a pair."""
    generator = torch.Generator().manual_seed(_derived(seed, purpose, pair))
    of_second = torch.ones(count, dtype=torch.long)
    of_second[torch.randperm(count, generator=generator)[: count // 2]] = 0
    return list((of_second == second).tolist())


def _derived(seed: int, purpose: str, number: int) -> int:
    # NumPy's legacy generator, which a recipe may seed with it, takes no more than 32 bits.
    named = f"lethe/references/{purpose}/{seed}/{number}"
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big")


def _subset(data: MapDataset, indices: list[int]) -> MapDataset:
    return Subset(data, indices)  # type: ignore[arg-type]  # a MapDataset is all that it asks for
