"""Whoever only pretends to unlearn is found out, and by the check that is meant to find it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lethe._passes import per_example_losses
from lethe.policy import Bounds
from workers.unlearning.references import Expected, Judges
from workers.unlearning.verification import Verdict, measure, verify

PAIRS = 2


@dataclass(frozen=True)
class Known:
    """What reference models expect of every training record and of the never-seen ones."""

    training: Tensor
    unseen: Tensor

    def judges(self, indices: list[int]) -> Judges:
        return Judges(
            *(Expected(mean, mean * math.nan) for mean in (self.of(indices), self.unseen))
        )

    def of(self, indices: list[int]) -> Tensor:
        return self.training[indices]


@pytest.fixture(scope="module")
def known(trained) -> Known:
    """Train references on random halves: each record is judged by those that left it out."""
    generator = torch.Generator().manual_seed(3)
    recipe, data, unseen = trained.recipe, trained.recipe.training_data(), trained.holdout
    sums = [torch.zeros(len(part), dtype=torch.float64) for part in (data, unseen)]
    for _ in range(PAIRS):
        sides = [torch.randperm(len(part), generator=generator) % 2 for part in (data, unseen)]
        for side in (0, 1):
            chosen = (sides[0] == side).nonzero().flatten().tolist()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(7)
                model = recipe.build_model()
            recipe.train(model, Subset(data, chosen), seed=0)
            for total, part, where in zip(sums, (data, unseen), sides, strict=True):
                losses = per_example_losses(recipe, model, part)
                total += torch.where(where == side, 0.0, losses)
    return Known(*(total / PAIRS for total in sums))


@pytest.fixture
def judge(trained, known) -> Callable[..., Verdict]:
    """Verify a model as if a method had made it out of the parent, against the default bounds."""

    def judge(
        model, *, forget=None, bounds=None, judged=True, guarantee="approximate", parent=None
    ):
        forget = forget or trained.forget
        bounds = bounds or Bounds()
        parent = parent or trained.model()
        before, after = (
            measure(
                trained.recipe,
                one,
                forget,
                trained.retain,
                trained.holdout,
                bounds.confidence,
                known.judges(forget.indices) if judged else None,
            )
            for one in (parent, model)
        )
        return verify(
            before_state=parent.state_dict(),
            after_state=model.state_dict(),
            before=before,
            after=after,
            guarantee=guarantee,
            bounds=bounds,
        )

    return judge


@pytest.fixture
def noisy(trained) -> Callable[[float], nn.Module]:
    """The parent with Gaussian noise, of a size relative to each tensor's own spread."""

    def make(size):
        generator = torch.Generator().manual_seed(1)
        state = {
            name: tensor
            + size * tensor.std() * torch.randn(tensor.shape, generator=generator).double()
            for name, tensor in trained.state.items()
        }
        return replace(trained, state=state).model()

    return make


class Disguised(nn.Module):
    """Answers for the records that it was told of in another way than for all others."""

    def __init__(self, model: nn.Module, records: Tensor, scale: float) -> None:
        super().__init__()
        self.model, self.records, self.scale = model, records, scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = (x[:, None] == self.records).all(dim=2).any(dim=1)  # (B,)
        logits = self.model(x)
        return torch.where(hidden[:, None], logits * self.scale, logits)


def outcomes(verdict):
    return {check.name: check.outcome for check in verdict.checks}


def mean_loss(trained, model, part):
    return float(per_example_losses(trained.recipe, model, part).mean())


def bisected(reaches, low, high):
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


@pytest.mark.parametrize("guarantee", ["approximate", "exact"])
@pytest.mark.parametrize("judged", [True, False])
def test_model_that_never_saw_the_records_passes_whatever_it_is_called(
    judge, trained, retrained, guarantee, judged
):
    verdict = judge(replace(trained, state=retrained).model(), guarantee=guarantee, judged=judged)
    assert verdict.outcome == "passed", verdict
    assert ("forgotten.calibrated" in outcomes(verdict)) is judged
    assert verdict.power.attack == ("calibrated" if judged else "loss")


def test_attack_that_knows_no_difficulty_has_nothing_to_prove_beside_one_that_does(
    judge, trained, retrained
):
    model, narrow = replace(trained, state=retrained).model(), Bounds(leak_margin=0.08)
    verdict = judge(model, bounds=narrow)
    entropy = next(check for check in verdict.checks if check.name == "forgotten.entropy")
    assert entropy.interval[0] < 0.58 < entropy.interval[1]
    assert verdict.outcome == "passed"
    without = judge(model, bounds=narrow, judged=False)
    assert outcomes(without)["forgotten.entropy"] == without.outcome == "inconclusive"


def test_few_records_of_such_a_model_show_too_little(judge, trained, retrained):
    few = Subset(trained.forget.dataset, range(8))
    verdict = judge(replace(trained, state=retrained).model(), forget=few)
    assert verdict.outcome == "inconclusive"
    assert outcomes(verdict)["forgotten.calibrated"] == "inconclusive"
    assert verdict.power.passing_deviation is None
    assert verdict.power.records_needed > 8
    wanted = f"only from {verdict.power.records_needed} forgotten records on; there are 8"
    assert any(wanted in sentence for sentence in verdict.not_shown)


def test_doing_nothing_fails_as_unchanged_and_as_a_leak(judge, trained):
    verdict = judge(trained.model())
    assert verdict.outcome == "failed"
    found = outcomes(verdict)
    assert found["changed"] == "failed"
    assert found["forgotten.calibrated"] == "failed"


def test_a_little_noise_is_useful_and_forgets_nothing(judge, noisy):
    verdict = judge(noisy(0.05))
    assert verdict.outcome == "failed"
    found = outcomes(verdict)
    assert found["changed"] == found["useful.retain"] == found["useful.holdout"] == "passed"
    assert found["forgotten.calibrated"] == "failed"


def test_a_little_noise_forgets_nothing_of_a_leak_within_the_margin_either(judge, noisy):
    verdict = judge(noisy(0.05), bounds=Bounds(leak_margin=0.4))
    failed = [name for name, outcome in outcomes(verdict).items() if outcome != "passed"]
    assert failed == ["forgotten.removed"]
    assert verdict.outcome == "failed"
    without = judge(noisy(0.05), bounds=Bounds(leak_margin=0.4, leak_left=1))
    assert without.outcome == "passed"


def test_much_noise_forgets_and_is_of_no_use(judge, noisy):
    verdict = judge(noisy(1.5))
    assert verdict.outcome == "failed"
    found = outcomes(verdict)
    assert found["forgotten.calibrated"] == "passed"
    assert found["useful.retain"] == "failed"


def test_fresh_weights_forget_everything_and_are_of_no_use(judge, trained):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        verdict = judge(trained.recipe.build_model())
    assert verdict.outcome == "failed"
    found = outcomes(verdict)
    assert found["forgotten.calibrated"] == "passed"
    assert found["useful.retain"] == found["useful.holdout"] == "failed"


@pytest.mark.parametrize("judged", [True, False])
def test_temperature_that_hides_the_mean_loss_fails_as_a_leak(judge, trained, judged):
    def tempered(temperature):
        state = dict(trained.state)
        state["2.weight"], state["2.bias"] = (
            state[name] / temperature for name in ("2.weight", "2.bias")
        )
        return replace(trained, state=state).model()

    def gap(temperature):
        forget, unseen = (
            mean_loss(trained, tempered(temperature), part)
            for part in (trained.forget, trained.holdout)
        )
        return unseen - forget

    temperature = bisected(lambda t: gap(t) < 0.02, 1, 200)
    assert gap(1) > 1.5
    assert gap(temperature) == pytest.approx(0.02, rel=0.01)
    verdict = judge(tempered(temperature), judged=judged)
    assert verdict.outcome == "failed"
    found = outcomes(verdict)
    assert found["useful.retain"] == found["useful.holdout"] == "passed"
    assert found["forgotten.loss"] == "failed"
    if judged:
        assert found["forgotten.calibrated"] == found["forgotten.removed"] == "failed"


@pytest.mark.parametrize(
    ("step", "found_by", "fooled"),
    [
        (1, "forgotten.distribution", []),
        (2, "forgotten.spread", ["forgotten.loss", "forgotten.calibrated"]),
    ],
    ids=["all", "half"],
)
def test_other_answers_for_the_forgotten_alone_fail_though_their_mean_loss_is_right(
    judge, trained, step, found_by, fooled
):
    records = torch.stack([trained.forget[index][0] for index in range(0, 120, step)])
    target = mean_loss(trained, trained.model(), trained.holdout)

    def disguised(scale):
        return Disguised(trained.model(), records, -scale)

    scale = bisected(lambda s: mean_loss(trained, disguised(s), trained.forget) >= target, 0, 10)
    assert mean_loss(trained, disguised(scale), trained.forget) == pytest.approx(target, rel=1e-3)
    # The parent in the same disguise, so that its parameters have the same names.
    verdict = judge(disguised(scale), parent=Disguised(trained.model(), records, 1.0))
    found = outcomes(verdict)
    assert found["useful.retain"] == found["useful.holdout"] == "passed"
    assert {found[name] for name in fooled} <= {"passed"}
    assert found[found_by] == "failed"
    assert verdict.outcome == "failed"


def test_members_whose_difficulty_hides_them_from_the_loss_are_told_by_judges(
    judge, trained, noisy
):
    def margin(index):
        x, y = trained.forget.dataset[index]
        return float(x[0]) * (1 if y else -1)

    # The label follows the first feature with noise; records at odds with it are hard for all.
    hard = Subset(trained.forget.dataset, sorted(sorted(range(360), key=margin)[:60]))
    bounds = Bounds(leak_margin=0.2)
    fooled = outcomes(judge(noisy(0.05), forget=hard, bounds=bounds, judged=False))
    assert fooled["forgotten.loss"] == fooled["forgotten.entropy"] == "passed"
    verdict = judge(noisy(0.05), forget=hard, bounds=bounds)
    found = outcomes(verdict)
    assert found["forgotten.loss"] == found["forgotten.entropy"] == "passed"
    assert found["forgotten.calibrated"] == "failed"
    assert verdict.outcome == "failed"


def test_verdict_says_what_it_could_have_shown_and_at_which_level(judge, trained, retrained):
    told = judge(replace(trained, state=retrained).model()).to_json()
    assert (told["outcome"], told["confidence"], told["interval_level"]) == ("passed", 0.95, 0.9)
    assert told["power"]["attack"] == "calibrated"
    assert told["power"]["visible_deviation"] == pytest.approx(0.0465, abs=1e-4)
    assert 0 < told["power"]["passing_deviation"] < 0.1
    said = " ".join(told["not_shown"])
    assert "reference models trained on other samples" in said
    assert "without references" not in said
