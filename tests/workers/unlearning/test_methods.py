import json
import random
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

from lethe.policy import MethodName, MethodOptions
from lethe.recipe import Recipe
from workers.unlearning.errors import Cancelled, EmptySet, NotFinite
from workers.unlearning.method import method_for

ALL = get_args(MethodName)
INCREMENTAL = ["iau", "nabla_tau"]


@pytest.mark.parametrize("name", ALL)
def test_every_method_a_policy_can_name_is_there_under_that_name(name):
    assert method_for(name, MethodOptions()).name == name


@pytest.mark.parametrize("name", ALL)
def test_same_seed_gives_the_same_bits_whatever_the_global_state(trained, context, options, name):
    states = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        unlearned = method_for(name, options).unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe, seed=3),
        )
        states.append(unlearned.state)
    for tensor_name in trained.state:
        assert torch.equal(states[0][tensor_name], states[1][tensor_name])


@pytest.mark.parametrize("name", ["nabla_tau", "retrain"])
def test_another_seed_gives_other_weights(trained, context, options, name):
    one, two = (
        method_for(name, options)
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe, seed=seed),
        )
        .state
        for seed in (3, 4)
    )
    assert any(not torch.equal(one[tensor_name], two[tensor_name]) for tensor_name in one)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("patience", [None, 1])
def test_global_generators_stay_as_they_are(trained, context, options, name, patience):
    model = trained.model()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    context = context(trained.recipe, patience=patience)
    try:
        method_for(name, options).unlearn(
            model, trained.forget, trained.retain, trained.holdout, context
        )
    except Cancelled:
        assert patience is not None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.parametrize("name", ALL)
def test_weights_come_back_as_copies_that_fit_a_fresh_model(trained, context, options, name):
    model = trained.model()
    unlearned = method_for(name, options).unlearn(
        model, trained.forget, trained.retain, trained.holdout, context(trained.recipe)
    )
    kept = {key: tensor.clone() for key, tensor in unlearned.state.items()}
    for parameter in model.parameters():
        parameter.data.zero_()
    for key, tensor in unlearned.state.items():
        assert not tensor.requires_grad
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, kept[key])
    trained.recipe.build_model().load_state_dict(unlearned.state)


@pytest.mark.parametrize("name", ALL)
def test_evidence_is_plain_json(trained, context, options, name):
    evidence = (
        method_for(name, options)
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe, seed=3),
        )
        .evidence
    )
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
    assert evidence["method"] == name
    assert evidence["seed"] == 3
    assert evidence["records"]["forget"] == 120
    assert evidence["seconds"] > 0


@pytest.mark.parametrize("name", ALL)
def test_progress_rises_to_one_under_one_name(trained, context, options, name):
    seen = []
    context = context(trained.recipe, progress=lambda phase, done: seen.append((phase, done)))
    method_for(name, options).unlearn(
        trained.model(), trained.forget, trained.retain, trained.holdout, context
    )
    fractions = [done for _, done in seen]
    assert {phase for phase, _ in seen} == {f"unlearn {name}"}
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] == pytest.approx(1)


@pytest.mark.parametrize("name", INCREMENTAL)
def test_cancellation_stops_before_the_next_batch(trained, context, options, name):
    whole, part = [], []
    for seen, patience in ((whole, None), (part, 20 if name == "nabla_tau" else 3)):
        context_ = context(
            trained.recipe, patience=patience, progress=lambda _, done, seen=seen: seen.append(done)
        )
        try:
            method_for(name, options).unlearn(
                trained.model(), trained.forget, trained.retain, trained.holdout, context_
            )
        except Cancelled:
            assert patience is not None
    assert 0 < len(part) < len(whole)
    assert part == whole[: len(part)]


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_forget_is_refused(trained, context, options, name):
    with pytest.raises(EmptySet, match="forget"):
        method_for(name, options).unlearn(
            trained.model(),
            Subset(trained.forget, []),
            trained.retain,
            trained.holdout,
            context(trained.recipe),
        )


@pytest.mark.parametrize("name", INCREMENTAL)
def test_parent_that_is_not_finite_is_refused(trained, context, options, name):
    model = trained.model()
    next(model.parameters()).data[0, 0] = float("nan")
    with pytest.raises(NotFinite, match="mean loss of the"):
        method_for(name, options).unlearn(
            model, trained.forget, trained.retain, trained.holdout, context(trained.recipe)
        )


@pytest.mark.parametrize(
    ("name", "what"), [("iau", "gradient of the retain"), ("nabla_tau", "mean loss of the")]
)
def test_gradient_that_is_not_finite_is_refused(context, options, name, what):
    class Cusp(Recipe):
        """A finite loss, √|w·x|, whose gradient at w = 0 is not."""

        def build_model(self):
            model = nn.Linear(1, 1, bias=False).double()
            model.weight.data.zero_()
            return model

        def training_data(self):
            return TensorDataset(torch.ones(4, 1, dtype=torch.float64))

        holdout_data = training_data

        def sample_ids(self):
            return list("abcd")

        def losses(self, model, batch):
            return model(batch[0]).squeeze(1).abs().sqrt()

    recipe = Cusp()
    data = recipe.training_data()
    with pytest.raises(NotFinite, match=what):
        method_for(name, options).unlearn(recipe.build_model(), data, data, data, context(recipe))
