import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lethe.policy import Bounds
from workers.unlearning.references import Expected, Judges
from workers.unlearning.verification import Verdict, measure, verify


def expecting(number, value=0.5):
    return Expected(torch.full((number,), value).double(), torch.full((number,), math.nan).double())


@pytest.fixture
def judge(trained) -> Callable[..., Verdict]:
    """Verify a state made out of the parent, before judges of our choice."""

    def judge(state, judges):
        before, after = (
            measure(
                trained.recipe,
                replace(trained, state=one).model(),
                trained.forget,
                trained.retain,
                trained.holdout,
                0.95,
                judges,
            )
            for one in (trained.state, state)
        )
        return verify(
            before_state=trained.state,
            after_state=state,
            before=before,
            after=after,
            guarantee="approximate",
            bounds=Bounds(),
        )

    return judge


@pytest.mark.parametrize("side", ["forgotten", "unseen"])
def test_judges_that_know_no_record_leave_the_decision_to_the_other_attacks(judge, retrained, side):
    judges = Judges(expecting(120), expecting(800))
    unknown = replace(judges, **{side: expecting(len(getattr(judges, side).mean), math.nan)})
    verdict = judge(retrained, unknown)
    assert "forgotten.calibrated" not in [check.name for check in verdict.checks]
    assert verdict.power.attack == "loss"
    assert verdict.outcome == "passed"
    assert any("without references" in sentence for sentence in verdict.not_shown)
    assert judge(retrained, judges).power.attack == "calibrated"


def test_records_left_out_are_named_as_not_shown(judge, retrained):
    judges = Judges(expecting(120), expecting(800))
    judges.forgotten.mean[:7] = math.nan
    said = " ".join(judge(retrained, judges).not_shown)
    assert "7 forgotten and 0 never-seen records" in said


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_fail_every_check_of_the_judges_too(judge, retrained, bad):
    state = {name: tensor.clone() for name, tensor in retrained.items()}
    state["2.bias"][0] = bad
    verdict = judge(state, Judges(expecting(120), expecting(800)))
    assert {check.outcome for check in verdict.checks} == {"failed"}
    assert "forgotten.calibrated" in [check.name for check in verdict.checks]


def test_judges_of_another_number_of_records_are_refused(judge, retrained):
    with pytest.raises(ValueError, match="another number"):
        judge(retrained, Judges(expecting(119), expecting(800)))
