import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lethe.policy import Bounds
from workers.unlearning.attacks import CALIBRATED, attack
from workers.unlearning.checks import (
    distributed_alike,
    equivalent,
    kept_out,
    leak_removed,
    spread_alike,
    standing_out,
    unprovoked,
    useful,
)
from workers.unlearning.measurement import Part


def normal(m, n, seed=1, shift=0.0, name="loss"):
    """An attack on values that are lower for members by this shift."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(m + n, generator=generator, dtype=torch.float64).split([m, n])
    return attack(name, x - shift, y)


@pytest.mark.parametrize(
    ("shift", "m", "demanding", "lenient"),
    [
        (0.0, 900, "passed", "passed"),
        (0.0, 20, "inconclusive", "passed"),
        (0.4, 100, "inconclusive", "passed"),
        (0.8, 100, "failed", "failed"),
        (-0.8, 100, "failed", "failed"),
    ],
)
def test_outcome_follows_from_where_the_interval_lies(shift, m, demanding, lenient):
    made, bounds = normal(m, 2_000, shift=shift), Bounds()
    low, high = made.interval(0.95)
    where = "passed" if low >= 0.4 and high <= 0.6 else "inconclusive"
    where = "failed" if low > 0.6 or high < 0.4 else where
    assert where == demanding
    assert equivalent(made, bounds).outcome == demanding
    assert unprovoked(made, bounds).outcome == lenient
    # A retrained model fails on evidence of a leak only.
    expected = "failed" if shift > 0 and demanding == "failed" else "passed"
    assert kept_out(made, None, bounds).outcome == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=0, max_size=6), st.integers(0, 6))
def test_nothing_finite_never_passes(values, n):
    made = attack("loss", torch.tensor([*values, math.nan]), torch.rand(n))
    for judged in (equivalent, unprovoked, distributed_alike, spread_alike, standing_out):
        assert judged(made, Bounds()).outcome == "failed"
        json.dumps(judged(made, Bounds()).to_json(), allow_nan=False)
    assert kept_out(made, made, Bounds()).outcome == "failed"
    assert leak_removed(made, normal(len(values) + 1, max(n, 1)), Bounds()).outcome == "failed"


def test_half_pushed_out_and_half_left_is_told_by_the_distribution_alone():
    generator = torch.Generator().manual_seed(2)
    y = torch.randn(2_000, generator=generator, dtype=torch.float64)
    x = torch.cat([torch.full((100,), -3.0), torch.full((100,), 3.0)]).double()
    x += 0.1 * torch.randn(200, generator=generator, dtype=torch.float64)
    balanced = attack("loss", x, y)
    assert balanced.auc == pytest.approx(0.5, abs=0.01)
    assert equivalent(balanced, Bounds()).outcome == "passed"
    check = distributed_alike(balanced, Bounds())
    assert check.outcome == "failed"
    assert check.value == pytest.approx(stats.ks_2samp(x.numpy(), y.numpy()).statistic)
    critical = math.sqrt(math.log(40) / 2 * 2_200 / 400_000)
    assert check.interval[0] == pytest.approx(check.value - critical)
    assert distributed_alike(normal(200, 2_000), Bounds()).outcome == "passed"


def test_spread_is_the_area_of_distances_from_the_middle_of_the_never_seen():
    made = normal(30, 41, seed=4)
    x, y = ([float(v) for v in side] for side in made.scores)
    middle = sorted(y)[20]
    pairs = [abs(a - middle) > abs(b - middle) for a in x for b in y]
    check = spread_alike(made, Bounds())
    assert check.value == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert check.value - check.interval[0] >= 1.6448 * math.sqrt(72 / (12 * 30 * 41))


@pytest.mark.parametrize(
    ("m", "out", "outcome"),
    [(400, 0.0, "passed"), (400, 0.5, "passed"), (400, 1.5, "failed"), (30, 0.8, "inconclusive")],
)
def test_records_pushed_to_both_sides_are_told_by_their_spread(m, out, outcome):
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(m + 2_000, generator=generator, dtype=torch.float64).split([m, 2_000])
    x += out * torch.tensor([1.0, -1.0]).repeat(m // 2)
    made = attack("loss", x, y)
    assert spread_alike(made, Bounds()).outcome == outcome
    assert made.auc == pytest.approx(0.5, abs=0.1)
    # Pulled together, they give themselves away no more than the distribution tells.
    assert spread_alike(attack("loss", x * 0.1, y), Bounds()).outcome == "passed"


def test_distribution_is_held_to_the_auc_of_its_best_threshold():
    # Half the forgotten records lie below every never-seen one, the others among them: one
    # threshold is an attack of AUC ½ + D/2 with D = ½, so that a margin of ¼ is just met.
    y = torch.arange(2_000, dtype=torch.float64)
    x = torch.cat([torch.full((500,), -1.0).double(), y[::4] + 0.5])
    made = attack("loss", x, y)
    assert made.gap == pytest.approx(0.5, abs=0.002)
    critical = math.sqrt(math.log(40) / 2 * 3_000 / 2_000_000)
    just = made.gap / 2 - critical / 2
    assert distributed_alike(made, Bounds(leak_margin=just + 0.001)).outcome == "passed"
    assert distributed_alike(made, Bounds(leak_margin=just - 0.001)).outcome == "failed"


def test_single_record_that_stands_out_fails_though_the_average_hides_it():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(5_020, generator=generator, dtype=torch.float64).split([20, 5_000])
    assert standing_out(attack("loss", x, y), Bounds()).outcome == "passed"
    x[7] = -9.0
    known = attack("loss", x, y)
    check = standing_out(known, Bounds())
    assert check.outcome == "failed"
    assert check.value == pytest.approx(20 / 5_001)
    assert equivalent(known, Bounds()).outcome != "failed"
    # One that stands out as unknown is no member.
    x[7] = 9.0
    assert standing_out(attack("loss", x, y), Bounds()).outcome == "passed"


@pytest.mark.parametrize(("m", "n", "power"), [(4, 400, True), (4, 399, False), (20, 400, False)])
def test_too_few_never_seen_records_cannot_single_out_anybody_and_say_so(m, n, power):
    x, y = torch.zeros(m).double(), torch.ones(n).double()
    check = standing_out(attack("loss", x, y), Bounds())
    assert check.value == pytest.approx(m / (n + 1))
    assert check.outcome == ("failed" if power else "passed")
    assert check.note.startswith("no power") is not power


def test_small_leak_that_the_margin_allows_has_to_be_removed_all_the_same():
    parent = normal(1_000, 5_000, shift=0.25, name=CALIBRATED)
    assert equivalent(parent, Bounds()).outcome == "passed"
    # What did nothing shows the same scores again.
    kept = leak_removed(parent, parent, Bounds())
    assert kept.outcome == "failed"
    assert kept.value == pytest.approx((parent.auc - 0.5) / 2)
    gone = leak_removed(normal(1_000, 5_000, seed=2, name=CALIBRATED), parent, Bounds())
    assert gone.outcome == "passed"
    assert gone.interval[1] < 0
    # A policy that lets nine tenths be left still wants a tenth gone, beyond doubt.
    assert leak_removed(parent, parent, Bounds(leak_left=0.9)).outcome == "failed"
    half = normal(1_000, 5_000, shift=0.125, name=CALIBRATED)
    assert leak_removed(half, parent, Bounds()).outcome == "inconclusive"


def test_estimate_alone_does_not_show_that_a_leak_was_removed():
    parent = normal(150, 2_000, shift=0.6, name=CALIBRATED)
    check = leak_removed(normal(150, 2_000, shift=0.2, name=CALIBRATED), parent, Bounds())
    assert check.value < 0 < check.interval[1]
    assert check.outcome == "inconclusive"


def test_separable_records_claim_no_certainty_of_what_is_left():
    three = attack(CALIBRATED, torch.zeros(3), torch.ones(40))
    low, high = leak_removed(three, three, Bounds()).interval
    # Half of the error that the AUC of three and forty has where nothing is known.
    assert high - low == pytest.approx(1.644854 * math.sqrt(44 / (12 * 3 * 40)), abs=1e-6)


def test_what_is_left_is_no_evidence_where_no_judge_knows_the_records():
    parent = normal(1_000, 5_000, shift=0.25)
    assert leak_removed(parent, parent, Bounds()).outcome == "inconclusive"


def test_parent_without_a_leak_has_none_to_remove():
    parent = normal(1_000, 5_000, name=CALIBRATED)
    check = leak_removed(parent, parent, Bounds())
    assert check.outcome == "passed"
    assert "no leak" in check.note


def test_interval_of_what_is_left_covers_it_as_often_as_it_says():
    # Members keep a part of what is known of them: correlated scores on the same records.
    generator = torch.Generator().manual_seed(5)
    before_shift, after_shift, covered = 0.8, 0.5, 0
    truth = [stats.norm.cdf(shift / math.sqrt(2)) - 0.5 for shift in (before_shift, after_shift)]
    for _ in range(300):
        shared, old, new = torch.randn(3, 250, generator=generator, dtype=torch.float64)
        before, after = (
            attack(CALIBRATED, values[:100] - shift, values[100:])
            for values, shift in (
                ((shared * 0.8 + old * 0.6), before_shift),
                ((shared * 0.8 + new * 0.6), after_shift),
            )
        )
        low, high = leak_removed(after, before, Bounds()).interval
        covered += low <= truth[1] - truth[0] / 2 <= high
    # A binomial of 300 at 0.9 has a standard deviation of 1.7 %.
    assert 0.84 < covered / 300 < 0.96


def part(losses, metric, folds=None):
    return Part(len(losses), metric, float(losses.mean()), losses, folds, len(losses))


def test_use_is_judged_by_the_estimate_and_told_with_its_interval():
    losses = torch.linspace(0, 1, 200, dtype=torch.float64)
    before, after = torch.full((10,), 0.9).double(), torch.linspace(0.8, 0.98, 10).double()
    parts = part(losses, 0.9, before), part(losses + 0.25, 0.88, after)
    check = useful("retain", *parts, Bounds(utility_budget=0.03))
    assert check.outcome == "passed"
    assert check.value == pytest.approx(0.02)
    assert check.interval[0] < 0.03 < check.interval[1]
    assert check.note.endswith("the budget lies within the interval")
    told = check.to_json()["details"]
    assert told["interval_from"] == "folds"
    assert told["mean_loss_rise"] == pytest.approx(0.25)
    assert told["mean_loss_rise_interval"] == pytest.approx([0.25, 0.25])
    spent = useful("retain", *parts, Bounds(utility_budget=0.01))
    assert spent.outcome == "failed"
    certain = useful("retain", *parts, Bounds(utility_budget=0.5))
    assert "interval" not in certain.note
