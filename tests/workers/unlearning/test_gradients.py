import pytest
import torch
from torch import nn

from workers.unlearning.errors import Cancelled
from workers.unlearning.gradients import mean_gradient, mean_loss


def test_gradient_is_that_of_least_squares_in_closed_form(regression, context):
    model, data = regression.build_model(), regression.training_data()
    X, y = data.tensors
    w = model.weight.detach().squeeze(0)
    mean = mean_gradient(model, data, context(regression), lambda _: None)
    torch.testing.assert_close(mean.gradient[0].squeeze(0), 2 / len(y) * X.T @ (X @ w - y))
    assert mean.loss == pytest.approx(float((X @ w - y).square().mean()), rel=1e-14)
    assert mean_loss(model, data, context(regression)) == pytest.approx(mean.loss, rel=1e-14)


def test_gradient_is_the_mean_of_the_examples_own_gradients(trained, context):
    model, recipe = trained.model(), trained.recipe
    sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, y in trained.forget:
        model.zero_grad()
        recipe.losses(model, [x.unsqueeze(0), y.unsqueeze(0)]).sum().backward()
        for total, parameter in zip(sums, model.parameters(), strict=True):
            total += parameter.grad
    mean = mean_gradient(model, trained.forget, context(recipe), lambda _: None)
    for total, gradient in zip(sums, mean.gradient, strict=True):
        torch.testing.assert_close(gradient, total / len(trained.forget))


# 7 leaves a last batch of one, 50 one of twenty; batch statistics would differ in each.
@pytest.mark.parametrize("batch_size", [1, 7, 50, 119, 120, 500])
def test_batch_size_changes_no_gradient(trained_with_batch_norm, context, batch_size):
    whole = trained_with_batch_norm.with_recipe(batch_size=120)
    parts = trained_with_batch_norm.with_recipe(batch_size=batch_size)
    expected, actual = (
        mean_gradient(one.model().train(), one.forget, context(one.recipe), lambda _: None)
        for one in (whole, parts)
    )
    assert actual.loss == pytest.approx(expected.loss, rel=1e-12)
    torch.testing.assert_close(actual.gradient, expected.gradient)


def test_each_module_gets_its_own_mode_back(trained_with_batch_norm, context):
    model = trained_with_batch_norm.model().train()
    model[1].eval()
    statistics = model[1].running_mean.clone()
    context = context(trained_with_batch_norm.recipe)
    mean_gradient(model, trained_with_batch_norm.forget, context, lambda _: None)
    mean_loss(model, trained_with_batch_norm.forget, context)
    assert [module.training for module in model] == [True, False, True, True]
    torch.testing.assert_close(model[1].running_mean, statistics, rtol=0, atol=0)


def test_what_no_loss_depends_on_has_no_gradient_and_frozen_weights_are_left_out(
    regression, context
):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.frozen, self.unused = (
                nn.Linear(3, 1, bias=False).double() for _ in range(3)
            )
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.used(x) + self.frozen(x)

    data = regression.training_data()
    mean = mean_gradient(Spare(), data, context(regression), lambda _: None)
    used, unused = mean.gradient
    assert used.abs().sum() > 0
    assert unused is None


def test_cancellation_takes_effect_between_batches(trained, context):
    fractions = []
    with pytest.raises(Cancelled):
        mean_gradient(
            trained.model(), trained.retain, context(trained.recipe, patience=2), fractions.append
        )
    assert fractions == [64 / 240, 128 / 240]
