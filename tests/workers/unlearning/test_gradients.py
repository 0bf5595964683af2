import pytest
import torch
from torch import nn

from workers.unlearning.errors import Cancelled, NotFinite
from workers.unlearning.gradients import gradient_sum, mean_gradient, mean_loss, mean_of


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


class Spare(nn.Module):
    """A layer that counts, one that is frozen and one that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.unused, self.used, self.frozen = (
            nn.Linear(3, 1, bias=False).double() for _ in range(3)
        )
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.used(x) + self.frozen(x)


def test_what_no_loss_depends_on_has_no_gradient_and_frozen_weights_are_left_out(
    regression, context
):
    model, data = Spare(), regression.training_data()
    mean = mean_gradient(model, data, context(regression), lambda _: None)
    unused, used = mean.gradient
    assert used.abs().sum() > 0
    assert unused is None
    total = gradient_sum(model, data, context(regression), lambda _: None)
    assert total.gradient.keys() == {"used.weight"}
    torch.testing.assert_close(total.gradient["used.weight"], 25 * used)
    of_total = mean_of(total, model)
    assert of_total.gradient[0] is None
    torch.testing.assert_close(of_total.gradient[1], used)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_sum_is_that_of_the_examples_own_gradients_under_their_parameters_names(
    trained_with_batch_norm, context, batch_size
):
    one = trained_with_batch_norm.with_recipe(batch_size=batch_size)
    model = one.model()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    loss = 0.0
    for x, y in one.forget:
        model.zero_grad()
        alone = one.recipe.losses(model.eval(), [x.unsqueeze(0), y.unsqueeze(0)]).sum()
        alone.backward()
        loss += alone.item()
        for name, parameter in model.named_parameters():
            expected[name] += parameter.grad
    statistics = model[1].running_mean.clone()
    total = gradient_sum(model.train(), one.forget, context(one.recipe), lambda _: None)
    assert total.records == 120
    assert total.loss == pytest.approx(loss, rel=1e-12)
    assert total.gradient.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(total.gradient[name], gradient)
    assert torch.equal(model[1].running_mean, statistics)
    assert model.training


def test_sum_is_wide_on_the_cpu_and_does_not_overflow_in_half_precision(regression, context):
    half = [(40 * x.half(), 40 * y.half()) for x, y in regression.training_data()] * 60
    model = regression.build_model().half()
    wide = regression.build_model()
    wide.weight.data = model.weight.data.double()
    expected = gradient_sum(
        wide, [(x.double(), y.double()) for x, y in half], context(regression), lambda _: None
    ).gradient["weight"]
    total = gradient_sum(model, half, context(regression), lambda _: None).gradient["weight"]
    assert total.dtype == torch.float64
    assert total.device.type == "cpu"
    # Six batches: the sum over one alone would overflow.
    assert expected.abs().max() > 6 * torch.finfo(torch.float16).max
    assert (total - expected).norm() < 0.01 * expected.norm()


def test_sum_that_is_not_finite_is_refused(regression, context):
    model = regression.build_model()
    model.weight.data[0, 1] = float("inf")
    with pytest.raises(NotFinite, match="sum"):
        gradient_sum(model, regression.training_data(), context(regression), lambda _: None)


@pytest.mark.parametrize("total", [mean_gradient, gradient_sum])
def test_cancellation_takes_effect_between_batches(trained, context, total):
    fractions = []
    with pytest.raises(Cancelled):
        total(
            trained.model(), trained.retain, context(trained.recipe, patience=2), fractions.append
        )
    assert fractions == [64 / 240, 128 / 240]
