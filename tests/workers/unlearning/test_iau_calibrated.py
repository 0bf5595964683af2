import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.data import Subset

from lethe.policy import IauOptions
from workers.unlearning.errors import EmptySet, NotFinite
from workers.unlearning.gradients import gradient_sum
from workers.unlearning.iau import Iau
from workers.unlearning.iau_calibration import (
    DOUBLINGS,
    MOST_FORGET_PASSES,
    TOLERANCE,
    line_along,
)


class Counted:
    """A dataset that counts how often an item of it is read."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        item = self.data[index]
        self.reads += 1
        return item


def forget_loss(one, state):
    model = one.model()
    model.load_state_dict(state)
    x, y = (torch.stack(column) for column in zip(*one.forget, strict=True))
    return torch.nn.functional.cross_entropy(model(x), y).item()


def calibrated(one, context, *, targets=None, ledger=None, model=None, holdout=None, **options):
    return Iau(IauOptions(rule="calibrated", **options)).unlearn(
        model or one.model(),
        one.forget,
        one.retain,
        one.holdout if holdout is None else holdout,
        replace(context(one.recipe), targets=targets, ledger=ledger),
    )


def test_length_is_the_root_of_the_quadratic_that_least_squares_make_of_it(regression, context):
    data = regression.training_data()
    forget, retain = Subset(data, range(5)), Subset(data, range(5, 25))
    model = regression.build_model()
    model.weight.data = torch.tensor([[0.4, -0.3, 0.2]], dtype=torch.float64)
    w = model.weight.detach().clone().squeeze(0)
    (X_f, y_f), (X_r, y_r) = (
        (data.tensors[0][part], data.tensors[1][part]) for part in (slice(5), slice(5, 25))
    )
    r_f, r_r = X_f @ w - y_f, X_r @ w - y_r
    g = 2 / 20 * X_r.T @ r_r - 2 / 5 * X_f.T @ r_f
    d = -g / g.norm()
    before = float(r_f.square().mean())
    target = 1.5 * before
    a, b = float((X_f @ d).square().mean()), float(2 * (r_f * (X_f @ d)).mean())
    root = (-b + math.sqrt(b * b + 4 * a * (target - before))) / (2 * a)

    unlearned = Iau(IauOptions(rule="calibrated", utility_budget=100.0)).unlearn(
        model,
        forget,
        retain,
        data,
        replace(context(regression), targets=torch.full((5,), target, dtype=torch.float64)),
    )
    moved = unlearned.state["weight"].squeeze(0) - w
    evidence = unlearned.evidence["calibration"]
    assert evidence["length"] == pytest.approx(root, rel=2 * TOLERANCE)
    assert evidence["length"] >= root
    torch.testing.assert_close(moved, evidence["length"] * d, rtol=1e-9, atol=1e-12)
    assert unlearned.evidence["step_norm"] == pytest.approx(evidence["length"])
    after = float((X_f @ (w + moved) - y_f).square().mean())
    assert unlearned.evidence["forget_loss"]["after"] == pytest.approx(after)
    assert evidence["limited_by"] == "target"


@pytest.mark.parametrize("source", ["references", "validation"])
def test_mean_forget_loss_meets_its_target(trained, context, source):
    targets = None
    if source == "references":
        targets = torch.linspace(0.2, 0.8, 120, dtype=torch.float64)
        targets[::3] = torch.nan
        target = float(targets[~targets.isnan()].mean())
    else:
        x, y = trained.holdout.tensors
        target = torch.nn.functional.cross_entropy(trained.model()(x), y).item()
    unlearned = calibrated(trained, context, targets=targets, utility_budget=1.0)
    after = forget_loss(trained, unlearned.state)
    before = unlearned.evidence["forget_loss"]["before"]
    assert before < target <= after <= target + TOLERANCE * (target - before)
    evidence = unlearned.evidence["calibration"]
    assert evidence["target"] == {"loss": pytest.approx(target), "from": source}
    assert evidence["limited_by"] == "target"
    assert not evidence["target_met_before"]
    assert unlearned.evidence["forget_loss"]["after"] == pytest.approx(after)
    assert unlearned.evidence["learning_rate"] is None
    assert unlearned.evidence["rule"] == "calibrated"
    assert json.loads(json.dumps(unlearned.evidence, allow_nan=False)) == unlearned.evidence


def test_references_none_of_which_know_a_record_leave_the_target_to_validation(trained, context):
    unknown = torch.full((120,), torch.nan, dtype=torch.float64)
    one, two = (calibrated(trained, context, targets=targets) for targets in (unknown, None))
    for name in trained.state:
        assert torch.equal(one.state[name], two.state[name])
    assert one.evidence["calibration"]["target"]["from"] == "validation"


def test_length_is_found_by_passes_over_the_forget_set_alone(trained, context):
    forget, retain, holdout = map(Counted, (trained.forget, trained.retain, trained.holdout))
    ledger = gradient_sum(
        trained.model(), trained.recipe.training_data(), context(trained.recipe), lambda _: None
    )
    for kept, read in ((None, 240), (ledger, 0)):
        for data in (forget, retain, holdout):
            data.reads = 0
        evidence = calibrated(
            replace(trained, forget=forget, retain=retain, holdout=holdout),
            context,
            targets=torch.full((120,), 0.6, dtype=torch.float64),
            ledger=kept,
            utility_budget=1.0,
        ).evidence
        assert retain.reads == read
        assert forget.reads == 120 * evidence["forget_passes"]
        assert 4 < evidence["forget_passes"] <= 1 + MOST_FORGET_PASSES
        # The metric before and after; the references say what the target is.
        assert holdout.reads == 2 * len(trained.holdout)


@pytest.mark.parametrize("budget", [0.0, 0.02])
def test_step_stays_within_the_utility_budget(trained, context, budget):
    far = torch.full((120,), 3.0, dtype=torch.float64)
    free = calibrated(trained, context, targets=far, utility_budget=1.0)
    kept = calibrated(trained, context, targets=far, utility_budget=budget)
    metrics = []
    for state in (trained.state, kept.state, free.state):
        model = trained.model()
        model.load_state_dict(state)
        metrics.append(trained.recipe.metric(model, trained.holdout))
    assert metrics[0] - metrics[2] > budget  # else there would be nothing to show
    assert metrics[0] - metrics[1] <= budget
    evidence = kept.evidence["calibration"]
    assert evidence["limited_by"] == "utility"
    assert free.evidence["calibration"]["limited_by"] == "target"
    assert evidence["metric"] == {"before": metrics[0], "after": metrics[1]}
    assert 0 < evidence["length"] < free.evidence["calibration"]["length"]
    # One step of the bisection further, the metric loses too much.
    model, share = trained.model(), 1 / 256 * free.evidence["calibration"]["length"]
    direction = {name: kept.state[name] - trained.state[name] for name in trained.state}
    longer = 1 + share / evidence["length"]
    model.load_state_dict({n: trained.state[n] + longer * direction[n] for n in trained.state})
    assert metrics[0] - trained.recipe.metric(model, trained.holdout) > budget
    after = forget_loss(trained, kept.state)
    assert kept.evidence["forget_loss"]["after"] == pytest.approx(after)
    assert kept.evidence["forget_passes"] == 1 + free.evidence["forget_passes"]


def test_budget_that_no_step_keeps_leaves_the_weights_and_says_so(trained, context):
    @dataclass
    class Fragile(type(trained.recipe)):
        def metric(self, model, dataset):
            moved = any(not torch.equal(trained.state[n], t) for n, t in model.state_dict().items())
            return math.nan if moved else 1.0

    fragile = replace(trained, recipe=Fragile())
    unlearned = calibrated(fragile, context, targets=torch.full((120,), 0.6).double())
    for name, tensor in trained.state.items():
        assert torch.equal(unlearned.state[name], tensor)
    evidence = unlearned.evidence
    assert evidence["calibration"]["limited_by"] == "utility"
    assert evidence["calibration"]["length"] == evidence["step_norm"] == 0
    assert evidence["forget_loss"]["after"] == evidence["forget_loss"]["before"]


@pytest.mark.parametrize(("target", "met"), [(0.0, True), (0.6, False)])
def test_target_that_is_met_already_moves_nothing_and_is_stated(trained, context, target, met):
    unlearned = calibrated(
        trained, context, targets=torch.full((120,), target).double(), utility_budget=1.0
    )
    same = all(torch.equal(unlearned.state[name], trained.state[name]) for name in trained.state)
    evidence = unlearned.evidence["calibration"]
    assert same is met
    assert evidence["target_met_before"] is met
    assert (evidence["length"] == 0) is met
    assert evidence["limited_by"] == "target"


def test_target_beyond_reach_is_stated(trained, context):
    evidence = calibrated(
        trained, context, targets=torch.full((120,), 1e9).double(), utility_budget=1.0
    ).evidence
    size = math.sqrt(sum(float(t.square().sum()) for t in trained.state.values()))
    assert evidence["calibration"]["limited_by"] == "bracket"
    assert evidence["calibration"]["length"] == pytest.approx(1e-3 * size * 2**DOUBLINGS)
    assert evidence["forget_loss"]["after"] < 1e9
    assert evidence["forget_passes"] == 2 + DOUBLINGS


def test_gradient_of_zero_gives_no_direction_to_go(trained, context):
    unlearned = calibrated(
        replace(trained, retain=trained.forget), context, targets=torch.full((120,), 5.0).double()
    )
    assert unlearned.evidence["step_norm"] == unlearned.evidence["calibration"]["length"] == 0
    assert unlearned.evidence["calibration"]["limited_by"] == "bracket"
    assert unlearned.evidence["forget_passes"] == 1
    for name, tensor in trained.state.items():
        assert torch.equal(unlearned.state[name], tensor)


def test_direction_survives_half_precision(trained, context):
    @dataclass
    class Narrow(type(trained.recipe)):
        def losses(self, model, batch):
            return super().losses(model, [batch[0].bfloat16(), batch[1]])

        def metric(self, model, dataset):
            return 1.0

    unlearned = calibrated(
        replace(trained, recipe=Narrow()),
        context,
        model=trained.model().to(torch.bfloat16),
        targets=torch.full((120,), 0.6),
    )
    assert unlearned.state["0.weight"].dtype == torch.bfloat16
    assert 0.6 <= unlearned.evidence["forget_loss"]["after"] < 0.65


def test_small_parts_of_a_direction_are_kept_in_half_precision():
    model = torch.nn.Linear(2, 1, bias=False).half()
    model.weight.data.zero_()
    line_along(model, [torch.tensor([[1e-8, 1.0]])]).move_to(1000.0)
    assert model.weight.dtype == torch.float16
    assert model.weight.flatten().tolist() == pytest.approx([-1e-5, -1000.0], rel=0.01, abs=0)


@pytest.mark.parametrize(
    ("targets", "error", "why"),
    [
        (torch.full((119,), 0.6), ValueError, "one number for each forget record"),
        (torch.full((120, 1), 0.6), ValueError, "one number for each forget record"),
        (torch.full((120,), math.inf), NotFinite, "expected loss of a forget record"),
    ],
)
def test_targets_that_do_not_fit_are_refused(trained, context, targets, error, why):
    with pytest.raises(error, match=why):
        calibrated(trained, context, targets=targets)


def test_validation_data_are_needed(trained, context):
    nothing = Subset(trained.holdout, [])
    with pytest.raises(EmptySet, match="holdout"):
        calibrated(trained, context, holdout=nothing)
    Iau(IauOptions(rule="sgd")).unlearn(
        trained.model(), trained.forget, trained.retain, nothing, context(trained.recipe)
    )


def test_metric_of_the_parent_must_be_finite(trained, context):
    @dataclass
    class Unknown(type(trained.recipe)):
        def metric(self, model, dataset):
            return math.nan

    with pytest.raises(NotFinite, match="metric"):
        calibrated(replace(trained, recipe=Unknown()), context)


def test_progress_rises_to_one_whatever_limits_the_step(trained, context):
    for targets in (torch.zeros(120), torch.full((120,), 0.6), torch.full((120,), 3.0)):
        seen = []
        noted = replace(
            context(trained.recipe, progress=lambda _, done, seen=seen: seen.append(done)),
            targets=targets,
        )
        Iau(IauOptions(rule="calibrated")).unlearn(
            trained.model(), trained.forget, trained.retain, trained.holdout, noted
        )
        assert seen == sorted(seen)
        assert seen[-1] == 1
