from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from lethe.policy import IauOptions
from workers.unlearning.errors import NotFinite
from workers.unlearning.iau import Iau

RULES = ["adam", "sgd", "calibrated"]


@pytest.fixture
def split(regression):
    data = regression.training_data()
    return data, Subset(data, range(5)), Subset(data, range(5, 25))


def least_squares_gradient(data, part, w):
    X, y = data.tensors[0][list(part.indices)], data.tensors[1][list(part.indices)]
    return 2 / len(y) * X.T @ (X @ w - y)


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        ("adam", lambda g, rate: -rate * g / (g.abs() + 1e-8)),
        ("sgd", lambda g, rate: -rate * g),
    ],
)
@pytest.mark.parametrize("rate", [1e-3, 0.2])
def test_step_is_that_of_the_rule_in_closed_form(regression, context, split, rule, step, rate):
    data, forget, retain = split
    model = regression.build_model()
    w = model.weight.detach().clone().squeeze(0)
    g = least_squares_gradient(data, retain, w) - least_squares_gradient(data, forget, w)
    unlearned = Iau(IauOptions(rule=rule, learning_rate=rate)).unlearn(
        model, forget, retain, data, context(regression)
    )
    torch.testing.assert_close(
        unlearned.state["weight"].squeeze(0) - w, step(g, rate), rtol=1e-9, atol=0
    )
    assert unlearned.guarantee == "approximate"
    assert unlearned.evidence["rule"] == rule
    assert unlearned.evidence["step_norm"] == pytest.approx(float(step(g, rate).norm()), rel=1e-6)
    assert unlearned.evidence["forget_passes"] == 2


@pytest.mark.parametrize("rule", RULES)
def test_batch_statistics_and_mode_do_not_enter(trained_with_batch_norm, context, rule):
    one = trained_with_batch_norm
    states = [
        Iau(IauOptions(rule=rule))
        .unlearn(model, one.forget, one.retain, one.holdout, context(one.recipe))
        .state
        for model in (one.model().train(), one.model().eval())
    ]
    moved = 0
    for name, tensor in one.state.items():
        assert torch.equal(states[0][name], states[1][name])
        if name.startswith("1.running") or name.endswith("tracked"):
            assert torch.equal(states[0][name], tensor)
        else:
            moved += not torch.equal(states[0][name], tensor)
    assert moved == 6


@pytest.mark.parametrize("rule", RULES)
def test_dropout_is_off(trained, context, rule):
    class Dropping(nn.Sequential):
        """The network of the recipe, half of its activations dropped in train mode."""

        def forward(self, x):
            hidden = nn.functional.dropout(self[1](self[0](x)), 0.5, training=self.training)
            return self[2](hidden)

    dropping = Dropping(*trained.model()).train()
    x = trained.holdout.tensors[0]
    assert not torch.equal(dropping(x), trained.model()(x))
    states = [
        Iau(IauOptions(rule=rule))
        .unlearn(model, trained.forget, trained.retain, trained.holdout, context(trained.recipe))
        .state
        for model in (dropping, trained.model())
    ]
    for name in trained.state:
        assert torch.equal(states[0][name], states[1][name])


@pytest.mark.parametrize("rule", RULES)
def test_batch_size_changes_nothing_but_rounding(trained_with_batch_norm, context, rule):
    states = []
    for batch_size in (7, 400):
        one = trained_with_batch_norm.with_recipe(batch_size=batch_size)
        states.append(
            Iau(IauOptions(rule=rule))
            .unlearn(one.model(), one.forget, one.retain, one.holdout, context(one.recipe))
            .state
        )
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["forget", "retain"])
def test_loss_that_is_not_finite_is_refused_with_the_name_of_its_set(regression, context, which):
    data = regression.training_data()
    sets = {"forget": Subset(data, range(5)), "retain": Subset(data, range(5, 25))}
    sets[which] = [(x, y * torch.inf) for x, y in sets[which]]
    with pytest.raises(NotFinite, match=f"mean loss of the {which} set"):
        Iau(IauOptions()).unlearn(
            regression.build_model(), **sets, holdout=data, context=context(regression)
        )


@pytest.mark.parametrize(
    "options", [{"learning_rate": 1e-2}, {"rule": "sgd", "learning_rate": 1.0}]
)
def test_forget_loss_rises(trained, context, options):
    evidence = (
        Iau(IauOptions(**options))
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe),
        )
        .evidence
    )
    assert evidence["forget_loss"]["after"] > 1.05 * evidence["forget_loss"]["before"]
    assert evidence["gradient"] == "full_pass"
    assert evidence["calibration"] is None


def test_frozen_parameters_and_those_that_nothing_depends_on_stay(trained, context):
    @dataclass
    class WithSpare(type(trained.recipe)):
        def build_model(self):
            model = super().build_model()
            model[0].bias.requires_grad_(False)
            model.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
            return model

        def losses(self, model, batch):
            logits = model[2](model[1](model[0](batch[0])))
            return nn.functional.cross_entropy(logits, batch[1], reduction="none")

    recipe = WithSpare()
    for rule in RULES:
        model = recipe.build_model()
        model.load_state_dict(trained.state, strict=False)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after = (
            Iau(IauOptions(rule=rule, utility_budget=1.0))
            .unlearn(
                model,
                trained.forget,
                trained.retain,
                trained.holdout,
                context(recipe),
            )
            .state
        )
        stayed = {name for name in before if torch.equal(before[name], after[name])}
        assert stayed == {"0.bias", "spare"}
