"""The references of a data set: what losses are expected of records that a model never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.cache import Cache
from benchmarks.timing import NOTHING, Took
from workers.artifacts import digest_of, dump_state
from workers.unlearning.contract import Context
from workers.unlearning.references import Expected, Group, expected_of, group_of, train_reference

# One set serves every model of a data set: references follow from the data alone.
SEED = 3_000


@dataclass(frozen=True, slots=True)
class Expectations:
    """What each group of references expects of every record of a data set."""

    training: dict[Group, Expected]
    holdout: dict[Group, Expected]
    took: Took
    """The time to train all of them."""


def expectations(
    cache: Cache,
    context: Context,
    dataset: str,
    configuration: str,
    count: int,
    tell: Callable[[str], None],
) -> Expectations:
    """Train the references, or take their losses out of the cache; ``tell`` hears of each."""
    recipe = context.recipe
    training, holdout = recipe.training_data(), recipe.holdout_data()
    N, M = len(training), len(holdout)
    own = replace(context, seed=SEED)

    def losses(index: int) -> dict[str, Tensor]:
        shown = train_reference(
            index, training, holdout, range(N), own, lambda state: digest_of(dump_state(state))
        )
        return {
            "training": _scattered(N, shown.half.left_out, shown.training),
            "holdout": _scattered(M, shown.half.holdout, shown.holdout),
        }

    took = NOTHING
    found: dict[Group, list[dict[str, Tensor]]] = {"target": [], "judge": []}
    for index in range(count):
        tell(f"{dataset}: reference {index + 1} of {count}")
        kept = cache.get(
            lambda index=index: losses(index),  # type: ignore[misc]
            kind="reference",
            dataset=dataset,
            configuration=configuration,
            seed=SEED,
            index=index,
        )
        took += kept.took
        found[group_of(index)].append(kept.tensors)
    return Expectations(
        {group: expected([one["training"] for one in all_]) for group, all_ in found.items()},
        {group: expected([one["holdout"] for one in all_]) for group, all_ in found.items()},
        took,
    )


def expected(losses: Sequence[Tensor]) -> Expected:
    """Return what K references expect of N records, by losses (N,) that are NaN where seen."""
    table = torch.stack(list(losses))  # (K, N)
    known = table.isfinite()
    count = known.sum(dim=0)  # (N,)
    mean = table.nansum(dim=0) / count
    squares = torch.where(known, table - mean, torch.zeros_like(table)).square().sum(dim=0)
    return expected_of(count.tolist(), mean.nan_to_num().tolist(), squares.tolist())


def chosen(whole: Expected, indices: Sequence[int]) -> Expected:
    """Return what is expected of some of the records, in the order of their indices."""
    index = torch.tensor(indices, dtype=torch.int64)
    return Expected(whole.mean[index], whole.spread[index])


def _scattered(size: int, indices: list[int], losses: Tensor) -> Tensor:
    whole = torch.full((size,), math.nan, dtype=torch.float64)
    whole[torch.tensor(indices, dtype=torch.int64)] = losses
    return whole
