"""What the benchmark of forgetting is made of: references, models, baselines, the ladder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import (
    arms,
    baselines,
    models,
)
from benchmarks.cache import Cache
from benchmarks.expectations import expectations, expected
from benchmarks.ground import climbed, prepare
from benchmarks.rows import Cell, Row
from benchmarks.training import Labelled, Setup
from benchmarks.workshop import Workshop, deleted
from lethe._passes import mean_loss
from lethe.policy import IauOptions, MethodOptions, NablaTauOptions, Policy
from workers.data import halve
from workers.unlearning.contract import Context
from workers.unlearning.references import train_reference


class Untouchable:
    """Records that nobody may look at."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("looked at")


def test_expectations_are_the_moments_of_the_losses_of_unseeing_references() -> None:
    table = np.random.default_rng(0).exponential(size=(6, 40))
    table[np.random.default_rng(1).random((6, 40)) < 0.4] = np.nan
    table[:, 0] = np.nan
    table[1:, 1], table[0, 1] = np.nan, 0.5
    found = expected([torch.tensor(row) for row in table])
    assert found.mean[0].isnan()
    assert float(found.mean[1]) == 0.5
    assert found.spread[:2].isnan().all()
    np.testing.assert_allclose(found.mean[2:], np.nanmean(table[:, 2:], axis=0))
    np.testing.assert_allclose(found.spread[2:], np.nanstd(table[:, 2:], axis=0, ddof=1))


def test_targets_and_judges_come_from_references_that_never_saw_the_record(
    tmp_path: Path, recipe: Labelled, context: Callable[..., Context]
) -> None:
    data, holdout = recipe.training_data(), recipe.holdout_data()
    told: list[str] = []
    found = expectations(Cache(tmp_path), context(recipe), "tiny", "", 4, told.append)
    assert len(told) == 4
    assert found.took.cpu_seconds > 0
    for index, group in enumerate(("target", "target", "judge", "judge")):
        shown = train_reference(
            index, data, holdout, range(80), context(recipe, seed=3_000), lambda _: ""
        )
        # One pair to a group: a record's mean is its loss under the one that left it out.
        assert len(shown.half.left_out) == 40
        assert torch.equal(found.training[group].mean[shown.half.left_out], shown.training)  # type: ignore[index]
        assert torch.equal(found.holdout[group].mean[shown.half.holdout], shown.holdout)  # type: ignore[index]

    workshop = Workshop("tiny", "", data.tensors[1], Cache(tmp_path), context(recipe), found)
    ground = prepare(workshop, Cell("tiny", "random", 0.05, 0), [3, 40, 41, 70], Policy())
    assert ground.targets is not None
    assert ground.judges is not None
    judging = halve(holdout)[1].indices
    assert torch.equal(ground.targets, found.training["target"].mean[[3, 40, 41, 70]])
    assert torch.equal(ground.judges.forgotten.mean, found.training["judge"].mean[[3, 40, 41, 70]])
    assert torch.equal(ground.judges.unseen.mean, found.holdout["judge"].mean[judging])


def test_a_model_is_trained_once_for_the_same_values(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"x": torch.full((2,), float(len(made)))}

    cache = Cache(tmp_path / "new")
    first, again = cache.get(make, seed=0), cache.get(make, seed=0)
    assert torch.equal(first.tensors["x"], again.tensors["x"])
    assert (again.took, len(made)) == (first.took, 1)
    assert float(cache.get(make, seed=1).tensors["x"][0]) == 2.0


def test_training_follows_from_the_seed_alone() -> None:
    def build() -> nn.Module:
        return models.bag_of_words(30, 2, width=4)

    tokens = torch.randint(0, 30, (40, 5), generator=torch.Generator().manual_seed(0))
    words = TensorDataset(tokens, tokens[:, 0] % 2)
    images = TensorDataset(torch.randn(8, 1, 28, 28), torch.arange(8) % 2)
    for data, build_model in ((words, build), (images, lambda: models.resnet8(2, width=2))):
        setup = Setup(records=len(data), epochs=2, batch_size=4)
        recipe = Labelled(setup, data, data, build_model)
        states = []
        for seed in (3, 3, 4):
            before = torch.get_rng_state()
            model = recipe.build_model()
            torch.set_rng_state(before)
            recipe.train(model, data, seed)
            assert torch.equal(torch.get_rng_state(), before)
            states.append(torch.cat([v.flatten().double() for v in model.state_dict().values()]))
            torch.rand(1)  # so that the next one is built from other weights
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])


def test_the_networks_give_logits_and_the_residual_one_normalises() -> None:
    resnet = models.resnet8()
    assert resnet(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in resnet.modules()) == 7
    bag = models.bag_of_words(30, 2)
    padded, longer = torch.tensor([[4, 9, 0]]), torch.tensor([[4, 9, 0, 0, 0]])
    assert torch.allclose(bag(padded), bag(longer))


def test_fine_tuning_looks_at_the_retain_set_alone(
    recipe: Labelled, context: Callable[..., Context]
) -> None:
    data = recipe.training_data()
    model = recipe.build_model()
    before = mean_loss(recipe, model, data)
    nothing = Untouchable()
    done = baselines.fine_tune(model, nothing, data, nothing, context(recipe))
    model.load_state_dict(done.state)
    assert mean_loss(recipe, model, data) < before
    assert done.guarantee == "approximate"


def test_gradient_ascent_looks_at_the_forget_set_alone_and_raises_its_loss(
    context: Callable[..., Context],
) -> None:
    images = TensorDataset(torch.randn(12, 1, 28, 28), torch.arange(12) % 2)
    recipe = Labelled(Setup(12, 3), images, images, lambda: models.resnet8(2, width=2))
    model = recipe.build_model()
    recipe.train(model, images, 0)
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    before = mean_loss(recipe, model, images)
    nothing = Untouchable()
    done = baselines.gradient_ascent(model, images, nothing, nothing, context(recipe))
    model.load_state_dict(done.state)
    assert mean_loss(recipe, model, images) > before
    assert statistics
    assert all(torch.equal(done.state[name], old) for name, old in statistics.items())


def test_a_policy_that_no_arm_follows_is_refused() -> None:
    assert arms.arm_of("nabla_tau", Policy(), False) == "nabla_tau_validation_eval"
    calibrated = Policy(options=MethodOptions(iau=IauOptions(rule="calibrated")))
    assert arms.arm_of("iau", calibrated, True) == "iau_calibrated"
    other = Policy(options=MethodOptions(nabla_tau=NablaTauOptions(weight_decay=0.5)))
    with pytest.raises(LookupError, match="nabla_tau"):
        arms.arm_of("nabla_tau", other, True)


def test_a_ladder_stops_at_the_first_rung_that_passed() -> None:
    blank = Row("tiny", "random", 0.2, 0, "")
    done = {
        "iau_adam": replace(blank, method="iau_adam", seconds=1, verdict="inconclusive"),
        "nabla_tau_per_sample": replace(
            blank, method="nabla_tau_per_sample", seconds=2, cpu_seconds=3, verdict="passed"
        ),
        "retrain": replace(blank, method="retrain", seconds=40, cpu_seconds=30, verdict="passed"),
    }
    second = climbed(Policy(), done, True)
    assert (second.method, second.rung, second.verdict) == (
        "ladder",
        "nabla_tau_per_sample",
        "passed",
    )
    assert (second.seconds, second.rung_seconds, second.time_ratio) == (3, 2, 0.1)
    failing = {method: replace(row, verdict="failed") for method, row in done.items()}
    nothing = climbed(Policy(), failing, True)
    assert (nothing.rung, nothing.verdict, nothing.seconds) == (None, "failed", 43)


def test_shares_of_one_seed_are_nested_and_a_class_is_whole() -> None:
    labels = torch.arange(200) % 5
    small, large = (deleted(labels, "random", share, 3) for share in (0.001, 0.3))
    assert (len(small), len(large), len(set(large))) == (1, 60, 60)
    assert set(small) < set(large)
    assert large == sorted(large)
    assert large != deleted(labels, "random", 0.3, 4)
    assert deleted(labels, "class", 0.0, 7) == [index for index in range(200) if index % 5 == 2]
