import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset

from lethe.policy import NablaTauOptions
from workers.unlearning.errors import Cancelled, NoReferences, NotFinite
from workers.unlearning.nabla_tau import NablaTau
from workers.unlearning.nabla_tau_targets import Ceiling

PER_SAMPLE = {"targets": "per_sample", "batch_size": 60}


class Unread(Dataset):
    """Validation data that nobody may look at."""

    def __len__(self):
        return 800

    def __getitem__(self, index):
        raise AssertionError("a validation record was read")


def losses(one, state, data):
    model = one.model()
    model.load_state_dict(state)
    x, y = (torch.stack(column) for column in zip(*data, strict=True))
    with torch.no_grad():
        return functional.cross_entropy(model(x), y, reduction="none")


def unlearn(one, context, own, *, holdout=None, **options):
    return NablaTau(NablaTauOptions(**options)).unlearn(
        one.model(),
        one.forget,
        one.retain,
        one.holdout if holdout is None else holdout,
        replace(context(one.recipe), targets=own),
    )


def same(one, two):
    return all(torch.equal(one.state[name], two.state[name]) for name in one.state)


@pytest.fixture
def targets():
    return torch.linspace(0.1, 1.1, 120, dtype=torch.float64)


def test_term_is_that_of_each_record_and_not_of_their_mean():
    of_batch = torch.tensor([0.2, 3.0, 0.9, 0.5], dtype=torch.float64)
    own = torch.tensor([9.0, 0.7, 1.0, 0.5, 0.4, 9.0], dtype=torch.float64)
    positions = torch.tensor([2, 1, 3, 4])
    expected = sum(
        max(own[p].item() - loss.item(), 0) for p, loss in zip(positions, of_batch, strict=True)
    )
    term, shortfalls = Ceiling(own).term(of_batch, positions, 4)
    assert term.item() == pytest.approx(expected / 4)
    assert shortfalls.tolist() == pytest.approx([0.8, 0.0, 0.0, 0.0])
    # Those at rest, whose terms would be zero, count as if they were there.
    assert Ceiling(own).term(of_batch[:2], positions[:2], 4)[0].item() == term.item()
    # Wide targets do not widen the losses of a model in single precision.
    assert Ceiling(own).term(of_batch.float(), positions, 4)[0].dtype == torch.float32
    # On average these losses lie far above their targets, which hides the one that does not.
    averaged, of_records = Ceiling(own[positions].mean().item()).term(of_batch, positions, 4)
    assert averaged.item() == 0
    assert of_records is None


def test_term_refuses_losses_that_are_not_one_for_each_record():
    own, positions = torch.ones(3), torch.tensor([0, 2])
    with pytest.raises(ValueError, match="one number for each"):
        Ceiling(own).term(torch.zeros(2, 1), positions, 2)
    with pytest.raises(ValueError, match="one number for each"):
        Ceiling(own).term(torch.zeros(1), positions, 2)
    Ceiling(own).term(torch.zeros(2), positions, 2)


@pytest.mark.parametrize(
    ("option", "known", "in_effect"),
    [
        ("auto", None, "validation"),
        ("auto", 0, "validation"),
        ("auto", 1, "per_sample"),
        ("per_sample", 1, "per_sample"),
        ("per_sample", 120, "per_sample"),
        ("validation", 120, "validation"),
    ],
)
def test_targets_in_effect_follow_the_option_and_what_is_known(
    trained, context, targets, option, known, in_effect
):
    if known is None:
        targets = None
    else:
        targets[known:] = torch.nan
    evidence = unlearn(trained, context, targets, targets=option, epochs=1).evidence
    assert evidence["targets"] == in_effect
    assert evidence["targets_known"] == (known if in_effect == "per_sample" else 0)
    assert (evidence["last_epoch"]["mean_target"] is None) is (in_effect == "validation")
    assert (evidence["last_epoch"]["below_target"] is None) is (in_effect == "validation")


def test_validation_targets_ignore_what_references_know(trained, context, targets):
    of_validation = {"targets": "validation", "batch_size": 60}
    one, two = (unlearn(trained, context, t, **of_validation) for t in (targets, None))
    assert same(one, two)
    assert not same(one, unlearn(trained, context, targets, batch_size=60))


@pytest.mark.parametrize("unknown", [None, torch.full((120,), torch.nan)])
def test_targets_per_sample_need_references(trained, context, unknown):
    with pytest.raises(NoReferences, match="references"):
        unlearn(trained, context, unknown, **PER_SAMPLE)


@pytest.mark.parametrize("shape", [(119,), (121,), (120, 1), ()])
@pytest.mark.parametrize("option", ["auto", "per_sample"])
def test_targets_that_do_not_go_with_the_forget_set_are_refused(trained, context, shape, option):
    with pytest.raises(ValueError, match="one number for each forget record"):
        unlearn(trained, context, torch.ones(shape), targets=option)


def test_validation_loss_stands_in_for_what_is_unknown_and_is_taken_only_then(
    trained, context, targets
):
    unlearn(trained, context, targets, holdout=Unread(), **PER_SAMPLE)
    targets[40:50] = torch.nan
    with pytest.raises(AssertionError, match="was read"):
        unlearn(trained, context, targets, holdout=Unread(), **PER_SAMPLE)
    stand_in = losses(trained, trained.state, trained.holdout).mean().item()
    some = unlearn(trained, context, targets, refresh_epochs=9, **PER_SAMPLE)
    filled = unlearn(
        trained, context, targets.nan_to_num(nan=stand_in), refresh_epochs=9, **PER_SAMPLE
    )
    for name, tensor in filled.state.items():
        torch.testing.assert_close(some.state[name], tensor, rtol=1e-9, atol=1e-12)
    assert some.evidence["first_epoch"]["validation_loss"] == pytest.approx(stand_in)
    assert filled.evidence["first_epoch"]["validation_loss"] is None


def test_record_at_or_above_its_own_target_is_left_alone(trained, context):
    # With α = 1 and no decay nothing but the term itself moves weights.
    options = {"alpha_start": 1.0, "weight_decay": 0.0, "epochs": 1, **PER_SAMPLE}
    now = losses(trained, trained.state, trained.forget)
    at_rest = unlearn(trained, context, now - 1e-9, **options)
    assert at_rest.evidence["step_norm"] == 0
    now[77] += 1.0
    assert unlearn(trained, context, now, **options).evidence["step_norm"] > 0


def test_epochs_say_how_far_the_records_are_from_their_targets(trained, context):
    now = losses(trained, trained.state, trained.forget)
    targets = now + torch.tensor([0.1, -0.01, 0.3]).repeat(40)
    # A rate so small that the losses stay what they are.
    evidence = unlearn(
        trained, context, targets, learning_rate=1e-12, epochs=2, **PER_SAMPLE
    ).evidence
    for epoch in (evidence["first_epoch"], evidence["last_epoch"]):
        assert epoch["mean_target"] == pytest.approx(targets.mean().item())
        assert epoch["forget_loss"] == pytest.approx(now.mean().item())
        assert epoch["below_target"] == pytest.approx(2 / 3)
        assert epoch["alpha"] == 0.5
        assert epoch["resting"] == 0
    assert evidence["last_epoch"]["learning_rate"] == pytest.approx(0.5e-12)


def test_shortfalls_close_record_by_record(trained, context):
    # Half of the records are to become far less likely, and half to stay.
    targets = losses(trained, trained.state, trained.forget)
    targets[:60] += 1.0
    options = {"batch_size": 60, "epochs": 40, "learning_rate": 1e-2, "alpha_start": 0.9}
    by_record, by_mean = (
        unlearn(trained, context, targets, targets=option, **options)
        for option in ("per_sample", "validation")
    )
    before, own, mean = (
        (targets - losses(trained, state, trained.forget)).relu().mean().item()
        for state in (trained.state, by_record.state, by_mean.state)
    )
    assert own < 0.55 * before
    assert own < 0.8 * mean


def test_batches_of_the_recipes_own_kind_are_taken(trained, context, targets):
    @dataclass
    class ByName(type(trained.recipe)):
        def losses(self, model, batch):
            return super().losses(model, [batch["x"], batch["y"]])

        @staticmethod
        def collate(items):
            xs, ys = zip(*items, strict=True)
            return {"x": torch.stack(xs), "y": torch.stack(ys)}

    named = unlearn(replace(trained, recipe=ByName()), context, targets, **PER_SAMPLE)
    assert same(named, unlearn(trained, context, targets, **PER_SAMPLE))


def test_single_precision_stays_single(trained, context, targets):
    @dataclass
    class Single(type(trained.recipe)):
        def losses(self, model, batch):
            found = super().losses(model, batch)
            assert found.dtype == torch.float32
            return found

    forget, retain, holdout = (
        TensorDataset(
            *(
                torch.stack(c).float() if c[0].is_floating_point() else torch.stack(c)
                for c in zip(*data, strict=True)
            )
        )
        for data in (trained.forget, trained.retain, trained.holdout)
    )
    unlearned = NablaTau(NablaTauOptions(**PER_SAMPLE)).unlearn(
        trained.model().float(),
        forget,
        retain,
        holdout,
        replace(context(Single()), targets=targets),
    )
    wide = unlearn(trained, context, targets, **PER_SAMPLE)
    for name, tensor in unlearned.state.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), wide.state[name], rtol=1e-3, atol=1e-4)


def test_progress_and_cancellation_are_between_batches(trained, context, targets):
    whole, part = [], []
    for seen, patience in ((whole, None), (part, 3)):
        one = context(
            trained.recipe, patience=patience, progress=lambda _, done, seen=seen: seen.append(done)
        )
        try:
            NablaTau(NablaTauOptions(batch_size=50, epochs=2)).unlearn(
                trained.model(),
                trained.forget,
                trained.retain,
                trained.holdout,
                replace(one, targets=targets),
            )
        except Cancelled:
            assert patience is not None
    assert whole == pytest.approx([step / 6 for step in range(1, 7)])
    assert part == whole[:3]


def test_target_that_is_infinite_is_refused(trained, context, targets):
    targets[3] = math.inf
    with pytest.raises(NotFinite):
        unlearn(trained, context, targets, **PER_SAMPLE)


def test_another_order_of_records_takes_its_targets_along(trained, context):
    # One record alone is to be raised; wherever it stands in the set, its loss is what rises.
    now = losses(trained, trained.state, trained.forget)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(4))
    shuffled = replace(trained, forget=Subset(trained.forget, order.tolist()))
    options = {"alpha_start": 1.0, "weight_decay": 0.0, "epochs": 40, **PER_SAMPLE}
    targets = now.clone()
    targets[31] += 2.0
    for one, own in ((trained, targets), (shuffled, targets[order])):
        after = losses(trained, unlearn(one, context, own, **options).state, trained.forget)
        assert (after - now)[31] > 0.5
        assert (after - now).argmax() == 31
