"""References against plain loops: who sees what, what is noted of it, and that nothing stays."""

import gc
import math
import statistics
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from lethe.recipe import CannotTrain, MapDataset, Recipe
from workers.unlearning.contract import Context
from workers.unlearning.errors import Cancelled, EmptySet, NotFinite
from workers.unlearning.references import (
    Shown,
    expected_of,
    group_of,
    half_of,
    train_reference,
)

SEED = 11
RECORDS, HOLDOUT = 41, 23


@dataclass
class Small(Recipe):
    """A little network with batch statistics, and dropout that a training draws."""

    batch_size: int = 8
    seeds: list[int] = field(default_factory=list)
    built: list[weakref.ref[Tensor]] = field(default_factory=list)

    def build_model(self) -> nn.Module:
        layers = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
        model = nn.Sequential(*layers).double()
        self.built += [weakref.ref(parameter) for parameter in model.parameters()]
        return model

    def _records(self, number: int, seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(number, 4, generator=generator, dtype=torch.float64)
        return TensorDataset(drawn[:, :3], drawn[:, 3:])

    def training_data(self) -> TensorDataset:
        return self._records(RECORDS, seed=1)

    def sample_ids(self) -> list[str]:
        return [str(index) for index in range(RECORDS)]

    def holdout_data(self) -> TensorDataset:
        return self._records(HOLDOUT, seed=2)

    def losses(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().squeeze(1)

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        self.seeds.append(seed)
        x, y = (torch.stack([dataset[i][part] for i in range(len(dataset))]) for part in (0, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(15):
            optimizer.zero_grad()
            self.losses(model, [x, y]).mean().backward()
            optimizer.step()


def total(state: Mapping[str, Tensor]) -> str:
    return repr([tensor.sum().item() for tensor in state.values()])


Make = Callable[..., Shown]


@pytest.fixture
def make(context: Callable[..., Context]) -> Make:
    def run(recipe: Recipe, index: int, kept: list[int] | None = None, **given: Any) -> Shown:
        return train_reference(
            index,
            recipe.training_data(),
            recipe.holdout_data(),
            list(range(RECORDS)) if kept is None else kept,
            context(recipe, seed=given.pop("seed", SEED), **given),
            total,
        )

    return run


def test_each_pair_parts_all_records_into_two_halves() -> None:
    everything = set(range(RECORDS))
    for pair in range(6):
        one, other = (
            half_of(SEED, index, range(RECORDS), RECORDS, HOLDOUT)
            for index in (2 * pair, 2 * pair + 1)
        )
        assert len(one.trained_on) == RECORDS // 2
        for half in (one, other):
            assert set(half.trained_on) | set(half.left_out) == everything
            assert set(half.trained_on).isdisjoint(half.left_out)
        assert one.trained_on == other.left_out
        assert set(one.holdout) | set(other.holdout) == set(range(HOLDOUT))
        assert set(one.holdout).isdisjoint(other.holdout)
        assert abs(len(one.holdout) - len(other.holdout)) == 1


def test_halves_are_drawn_anew_for_every_pair_and_seed_and_are_the_same_again() -> None:
    def drawn(seed: int, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        half = half_of(seed, index, range(RECORDS), RECORDS, RECORDS)
        return tuple(half.trained_on), tuple(half.holdout)

    halves = [drawn(seed, index) for seed in (1, 2) for index in range(8)]
    assert halves == [drawn(seed, index) for seed in (1, 2) for index in range(8)]
    # Training and holdout sides among them: one must not follow from the other.
    assert len({side for half in halves for side in half}) == 2 * len(halves)


def test_a_record_falls_to_either_half_as_often_over_many_pairs() -> None:
    pairs = 400
    seen = torch.zeros(RECORDS)
    for pair in range(pairs):
        seen[half_of(SEED, 2 * pair, range(RECORDS), RECORDS, 0).trained_on] += 1
    # Five standard deviations of a fair coin.
    assert (seen / pairs - 0.5).abs().max() < 5 * 0.5 / math.sqrt(pairs)


def test_what_is_forgotten_meanwhile_changes_nobody_elses_side() -> None:
    kept = [index for index in range(RECORDS) if index % 3]
    for index in range(4):
        whole = half_of(SEED, index, range(RECORDS), RECORDS, HOLDOUT)
        rest = half_of(SEED, index, kept, RECORDS, HOLDOUT)
        assert rest.trained_on == [i for i in whole.trained_on if i % 3]
        assert rest.left_out == [i for i in whole.left_out if i % 3]
        assert rest.holdout == whole.holdout


def test_targets_and_judges_take_whole_pairs_by_turns() -> None:
    assert [group_of(index) for index in range(8)] == ["target"] * 2 + ["judge"] * 2 + [
        "target"
    ] * 2 + ["judge"] * 2


@pytest.mark.parametrize("index", [0, 3])
def test_losses_are_those_of_a_model_trained_on_the_half_alone(make: Make, index: int) -> None:
    recipe = Small()
    kept = list(range(5, RECORDS))
    shown = make(recipe, index, kept)
    assert shown.half == half_of(SEED, index, kept, RECORDS, HOLDOUT)
    (seed,) = recipe.seeds
    torch.manual_seed(seed)
    model = recipe.build_model()
    recipe.train(model, Subset(recipe.training_data(), shown.half.trained_on), seed)
    model.eval()

    def alone(data: TensorDataset, indices: list[int]) -> list[float]:
        # One record at a time: batch statistics would make any other loss of it.
        pairs = [data[i] for i in indices]
        return [((model(x[None]) - y) ** 2).item() for x, y in pairs]

    of_training = alone(recipe.training_data(), shown.half.left_out)
    of_holdout = alone(recipe.holdout_data(), shown.half.holdout)
    assert shown.training.tolist() == pytest.approx(of_training, rel=1e-12)
    assert shown.holdout.tolist() == pytest.approx(of_holdout, rel=1e-12)
    assert shown.weights_digest == total(model.state_dict())
    assert shown.training.dtype == torch.float64


def test_the_same_reference_comes_out_bit_by_bit_and_another_one_differs(make: Make) -> None:
    recipe = Small()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, partner = make(recipe, 0), make(recipe, 0), make(recipe, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.training, again.training)
    assert torch.equal(first.holdout, again.holdout)
    assert first.weights_digest == again.weights_digest != partner.weights_digest
    assert recipe.seeds[0] == recipe.seeds[1] != recipe.seeds[2]
    # What numpy.random.seed takes.
    assert all(0 <= seed < 2**32 for seed in recipe.seeds)


class Cyclic(Small):
    """A model that holds itself, which counting references does not free."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model.__dict__["itself"] = model
        return model


class Holding(Small):
    """A training that leaves a weight in a cycle, as optimizers and their schedules may."""

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        super().train(model, dataset, seed)
        held: list[Any] = [next(model.parameters())]
        held.append(held)


@pytest.mark.parametrize("kind", [Small, Cyclic, Holding])
def test_nothing_of_the_weights_is_left_afterwards(make: Make, kind: type[Small]) -> None:
    recipe = kind()
    gc.collect()
    gc.disable()
    try:
        make(recipe, 0)
        assert recipe.built
        assert [weights() for weights in recipe.built if weights() is not None] == []
    finally:
        gc.enable()


def test_a_half_of_which_everything_is_forgotten_cannot_train(make: Make) -> None:
    recipe = Small()
    left_out = half_of(SEED, 0, range(RECORDS), RECORDS, HOLDOUT).left_out
    with pytest.raises(EmptySet):
        make(recipe, 0, left_out)
    assert recipe.seeds == []
    # The partner has all of these to train on, and nothing that it left out.
    shown = make(recipe, 1, left_out)
    assert len(shown.training) == 0
    assert len(shown.holdout) > 0


@dataclass
class Strange(Small):
    """Gives a loss that is no number to records marked so."""

    worst: float = math.nan

    def losses(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        losses = super().losses(model, batch)
        return losses if model.training else losses.where(batch[0][:, 0] < 1.5, self.worst)


@pytest.mark.parametrize("worst", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(make: Make, worst: float) -> None:
    marked = (Small().training_data().tensors[0][:, 0] >= 1.5).nonzero().flatten().tolist()
    assert marked
    with pytest.raises(NotFinite):
        make(Strange(worst=worst), 0)


class Untrainable(Small):
    train = Recipe.train


def test_a_recipe_that_cannot_train_has_no_references(make: Make) -> None:
    with pytest.raises(CannotTrain):
        make(Untrainable(), 0)


@pytest.mark.parametrize(("patience", "trained"), [(0, 0), (1, 1), (3, 1)])
def test_a_reference_is_cancelled_around_its_training_and_between_batches(
    make: Make, patience: int, trained: int
) -> None:
    recipe = Small()
    with pytest.raises(Cancelled):
        make(recipe, 0, patience=patience)
    assert len(recipe.seeds) == trained


def test_progress_rises_from_nothing_to_all(make: Make) -> None:
    reported: list[tuple[str, float]] = []
    make(Small(), 0, progress=lambda phase, fraction: reported.append((phase, fraction)))
    assert reported == sorted(reported)
    assert (reported[0][1], reported[-1][1]) == (0.0, 1.0)


def test_what_is_expected_is_the_mean_and_the_spread_where_there_are_any() -> None:
    losses: list[list[float]] = [[], [2.5], [1.0, 4.0], [0.25, 0.5, 3.0, 8.0]]
    expected = expected_of(
        [len(values) for values in losses],
        [statistics.fmean(values) if values else 0.0 for values in losses],
        [statistics.pvariance(values) * len(values) if values else 0.0 for values in losses],
    )
    assert expected.mean[0].isnan()
    assert expected.mean[1:].tolist() == [statistics.fmean(values) for values in losses[1:]]
    assert expected.spread[:2].isnan().all()
    spreads = [statistics.stdev(values) for values in losses[2:]]
    assert expected.spread[2:].tolist() == pytest.approx(spreads)
    assert expected.mean.dtype == expected.spread.dtype == torch.float64
