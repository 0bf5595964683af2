from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

from lethe.policy import IauOptions
from workers.unlearning.errors import Cancelled, NotFinite, StaleLedger
from workers.unlearning.gradients import gradient_sum
from workers.unlearning.iau import Iau
from workers.unlearning.iau_gradients import gradients
from workers.unlearning.ledger import GradientSum

RULES = ["adam", "sgd", "calibrated"]


class Sealed:
    """Retained data that nobody may look at."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return self.records

    def __getitem__(self, index):
        raise AssertionError("a retained record was read")


def plain_gradient(model, forget, retain):
    """∇ mean loss of the one minus ∇ mean loss of the other, by two backward passes over all."""
    sides = []
    for data in (retain, forget):
        x, y = (torch.stack(column) for column in zip(*data, strict=True))
        loss = nn.functional.cross_entropy(model.eval()(x), y)
        sides.append(torch.autograd.grad(loss, list(model.parameters())))
    return flat([r - f for r, f in zip(*sides, strict=True)])


def flat(tensors):
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def off(actual, expected):
    """Relative L2 error."""
    return float((actual - expected).norm() / expected.norm())


@pytest.fixture(params=[False, True], ids=["plain", "batch norm"])
def parent(request, trained, trained_with_batch_norm):
    return trained_with_batch_norm if request.param else trained


@pytest.fixture
def whole():
    """Make the sums over all data in batches of their own, at the weights of the model."""

    def make(one, model, forget, retain, context):
        both = [*forget, *retain]
        by_others = replace(one.recipe, batch_size=37)
        return gradient_sum(model, both, context(by_others), lambda _: None)

    return make


@pytest.mark.parametrize("records", [4, 180])  # 1 % and 50 %
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-5), (torch.float32, 1e-3)])
def test_step_from_the_ledger_is_that_of_a_pass_over_everything(
    parent, context, whole, records, dtype, bound
):
    x, y = parent.recipe.training_data().tensors
    data = TensorDataset(x.to(dtype), y)
    forget, retain = Subset(data, range(records)), Subset(data, range(records, 360))
    model = parent.model().to(dtype)
    full = context(parent.recipe)
    kept = replace(full, ledger=whole(parent, model, forget, retain, context))

    expected = plain_gradient(parent.model().to(dtype), forget, retain)
    found = [
        gradients(model, forget, retain, one, lambda _: None).combined() for one in (full, kept)
    ]
    assert off(flat(found[0]), expected) <= bound
    assert off(flat(found[1]), flat(found[0])) <= bound

    start = flat(model.parameters())
    steps, evidence = [], []
    for one, remaining in ((full, retain), (kept, Sealed(360 - records))):
        stepped = parent.model().to(dtype)
        unlearned = Iau(IauOptions(rule="sgd", learning_rate=1.0)).unlearn(
            stepped, forget, remaining, forget, one
        )
        steps.append(flat(stepped.parameters()) - start)
        evidence.append(unlearned.evidence)
    assert off(steps[0], -expected) <= bound
    assert off(steps[1], steps[0]) <= bound
    assert [one["gradient"] for one in evidence] == ["full_pass", "ledger"]
    for quantity in ("retain_loss", "forget_loss"):
        assert evidence[1][quantity] == pytest.approx(evidence[0][quantity], rel=bound)


@pytest.mark.parametrize("rule", RULES)
def test_no_retained_record_is_read_where_there_is_a_ledger(trained, context, whole, rule):
    sealed, method = Sealed(240), Iau(IauOptions(rule=rule))
    ledger = whole(trained, trained.model(), trained.forget, trained.retain, context)
    without = context(trained.recipe)
    unlearned = method.unlearn(
        trained.model(), trained.forget, sealed, trained.holdout, replace(without, ledger=ledger)
    )
    assert unlearned.evidence["gradient"] == "ledger"
    assert unlearned.evidence["step_norm"] > 0
    with pytest.raises(AssertionError, match="was read"):
        method.unlearn(trained.model(), trained.forget, sealed, trained.holdout, without)


@pytest.mark.parametrize("rule", RULES)
def test_progress_rises_to_one_with_a_ledger(trained, context, whole, rule):
    seen = []
    ledger = whole(trained, trained.model(), trained.forget, trained.retain, context)
    Iau(IauOptions(rule=rule)).unlearn(
        trained.model(),
        trained.forget,
        Sealed(240),
        trained.holdout,
        replace(
            context(trained.recipe, progress=lambda phase, done: seen.append((phase, done))),
            ledger=ledger,
        ),
    )
    fractions = [done for _, done in seen]
    assert {phase for phase, _ in seen} == {"unlearn iau"}
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 1
    assert fractions[-1] == 1


def test_cancellation_takes_effect_between_batches_with_a_ledger(trained, context, whole):
    ledger = whole(trained, trained.model(), trained.forget, trained.retain, context)
    impatient = replace(context(trained.recipe, patience=1), ledger=ledger)
    with pytest.raises(Cancelled):
        Iau(IauOptions()).unlearn(
            trained.model(), trained.forget, Sealed(240), trained.holdout, impatient
        )


def _with(ledger, name, tensor):
    return replace(ledger, gradient={**ledger.gradient, name: tensor})


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda kept: replace(kept, records=359), "359 records, and there are 360"),
        (lambda kept: replace(kept, records=361), "361 records, and there are 360"),
        (lambda kept: _with(kept, "3.weight", torch.zeros(2)), "model lacks"),
        (lambda kept: _with(kept, "0.bias", torch.zeros(33).double()), "shapes differently"),
        (lambda kept: _with(kept, "0.bias", torch.full((32,), torch.nan)), "not finite"),
        (lambda kept: _with(kept, "0.bias", torch.full((32,), torch.inf)), "not finite"),
        (lambda kept: replace(kept, loss=float("nan")), "not finite"),
        (
            lambda kept: replace(
                kept, gradient={n: t for n, t in kept.gradient.items() if n != "0.bias"}
            ),
            "lacks a parameter",
        ),
    ],
)
def test_ledger_that_cannot_be_of_this_model_and_data_is_refused(
    trained, context, whole, spoil, why
):
    model = trained.model()
    ledger = whole(trained, model, trained.forget, trained.retain, context)
    with pytest.raises(StaleLedger, match=why):
        Iau(IauOptions()).unlearn(
            model,
            trained.forget,
            Sealed(240),
            trained.holdout,
            replace(context(trained.recipe), ledger=spoil(ledger)),
        )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained.state[name])


def test_parent_that_is_not_finite_is_refused_with_a_ledger(trained, context, whole):
    model = trained.model()
    ledger = whole(trained, model, trained.forget, trained.retain, context)
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(NotFinite):
        Iau(IauOptions()).unlearn(
            model,
            trained.forget,
            Sealed(240),
            trained.holdout,
            replace(context(trained.recipe), ledger=ledger),
        )


def test_what_is_left_is_the_whole_without_the_part():
    a, b = torch.tensor([3.0, 5.0]), torch.tensor([1.0])
    whole = GradientSum(10, 7.0, {"a": a, "b": b})
    left = whole.without(GradientSum(4, 2.5, {"a": torch.tensor([1.0, -1.0])}))
    assert (left.records, left.loss) == (6, 4.5)
    assert torch.equal(left.gradient["a"], torch.tensor([2.0, 6.0]))
    assert torch.equal(left.gradient["b"], b)
    assert torch.equal(a, torch.tensor([3.0, 5.0]))
