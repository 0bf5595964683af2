"""One data set, ready to be worked on: its models, trained once, and what to expect of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from benchmarks.cache import Cache, Kept, digest_of_indices
from benchmarks.expectations import Expectations
from benchmarks.timing import Took
from lethe.policy import MethodOptions
from lethe.recipe import MapDataset, Recipe
from workers.data import halve
from workers.unlearning.contract import Context
from workers.unlearning.gradients import gradient_sum
from workers.unlearning.ledger import GradientSum
from workers.unlearning.method import method_for

State = Mapping[str, Tensor]

LOSS = "(loss)"  # beside tensors that are named like parameters


@dataclass(frozen=True, slots=True)
class Workshop:
    """A recipe with all that was ever trained with it."""

    dataset: str
    configuration: str
    """What beside records and seed decides a model's weights."""
    labels: Tensor
    """Of the training data, (N,)."""
    cache: Cache
    context: Context
    expectations: Expectations | None

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the data set."""
        return self.context.recipe

    def original(self, seed: int) -> Kept:
        """Return a model trained on everything."""

        def make() -> State:
            with self.context_for(seed).seeded():
                model = self.recipe.build_model()
                self.recipe.train(model, self.recipe.training_data(), seed)
            return model.state_dict()

        return self._kept(make, records="all", seed=seed)

    def retrained(self, forget: list[int], retain: list[int], seed: int) -> Kept:
        """Return what the service's own retrain gives without the records to forget."""

        def make() -> State:
            data = self.recipe.training_data()
            validation, _ = halve(self.recipe.holdout_data())
            parts = (subset(data, forget), subset(data, retain), validation)
            method = method_for("retrain", MethodOptions())
            return method.unlearn(self.recipe.build_model(), *parts, self.context_for(seed)).state

        return self._kept(make, records=digest_of_indices(retain), seed=seed)

    def ledger(self, seed: int) -> tuple[GradientSum, Took]:
        """Return the gradient sum of the original over everything, and the time it took."""
        data = self.recipe.training_data()

        def make() -> State:
            model = self.load(self.original(seed).tensors)
            total = gradient_sum(model, data, self.context_for(seed), lambda _: None)
            return {**total.gradient, LOSS: torch.tensor(total.loss, dtype=torch.float64)}

        kept = self._kept(make, kind="ledger", records="all", seed=seed)
        gradient = {name: tensor for name, tensor in kept.tensors.items() if name != LOSS}
        return GradientSum(len(data), float(kept.tensors[LOSS]), gradient), kept.took

    def context_for(
        self, seed: int, targets: Tensor | None = None, ledger: GradientSum | None = None
    ) -> Context:
        """Return the context of one method's run."""
        return replace(self.context, seed=seed, targets=targets, ledger=ledger)

    def load(self, state: State) -> nn.Module:
        """Return the recipe's model with these weights, in eval mode."""
        model = self.recipe.build_model()
        model.load_state_dict(state)
        return model.to(self.context.device).eval()

    def _kept(
        self, make: Callable[[], State], records: str, seed: int, kind: str = "model"
    ) -> Kept:
        named = partial(self.cache.get, kind=kind, dataset=self.dataset)
        return named(make, configuration=self.configuration, records=records, seed=seed)


def deleted(labels: Tensor, deletion: str, share: float, seed: int) -> list[int]:
    """Return the indices to forget, rising: random ones, or those of a class that the seed names.

    The shares of one seed are nested: what is deleted at 1 % is deleted at 5 %, too.
    """
    if deletion == "class":
        classes = labels.unique()  # type: ignore[no-untyped-call]
        of_class: list[int] = (labels == classes[seed % len(classes)]).nonzero().flatten().tolist()
        return of_class
    generator = torch.Generator().manual_seed(5_000 + seed)
    order: list[int] = torch.randperm(len(labels), generator=generator).tolist()
    return sorted(order[: max(1, round(share * len(labels)))])


def subset(data: MapDataset, indices: list[int]) -> MapDataset:
    """Return the records of these indices, in their order."""
    return Subset(data, indices)  # type: ignore[arg-type]  # a MapDataset is all that it asks for
