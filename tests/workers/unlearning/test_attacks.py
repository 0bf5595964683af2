import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workers.unlearning.attacks import (
    area,
    attack,
    null_variance,
    quantile,
    records_needed,
    true_positive_rate,
    visible_deviation,
)

# A busy machine is no fault of the code.
quick = settings(max_examples=40, deadline=None)

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-4, 4), min_size=1, max_size=25).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def placement(a, b):
    return 1.0 if a > b else 0.5 if a == b else 0.0


@quick
@given(scores, scores)
def test_auc_is_the_share_of_pairs_in_the_right_order(x, y):
    pairs = [placement(a, b) for a in x.tolist() for b in y.tolist()]
    assert area(x, y)[0] == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


@quick
@given(scores, scores)
def test_auc_is_the_mann_whitney_statistic(x, y):
    expected = stats.mannwhitneyu(x.numpy(), y.numpy(), method="asymptotic").statistic
    assert area(x, y)[0] == pytest.approx(expected / (len(x) * len(y)), abs=1e-12)


@quick
@given(scores, scores)
def test_swapping_the_sides_mirrors_the_auc_and_keeps_the_variance(x, y):
    auc, variance = area(x, y)
    mirrored, same = area(y, x)
    assert auc + mirrored == pytest.approx(1, abs=1e-12)
    assert variance == pytest.approx(same, abs=1e-12)


@quick
@given(scores, scores)
def test_only_the_order_of_scores_counts(x, y):
    assert area(x.exp() * 3 + 1, y.exp() * 3 + 1) == pytest.approx(area(x, y), abs=1e-12)


@quick
@given(scores.filter(lambda x: len(x) > 1), scores.filter(lambda y: len(y) > 1))
def test_variance_is_delongs(x, y):
    of_x = [statistics.fmean(placement(a, b) for b in y.tolist()) for a in x.tolist()]
    of_y = [statistics.fmean(placement(a, b) for a in x.tolist()) for b in y.tolist()]
    expected = statistics.variance(of_x) / len(x) + statistics.variance(of_y) / len(y)
    assert area(x, y)[1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (4, 4), (1, 6)])
def test_null_variance_is_that_over_all_ways_to_choose_the_members(m, n):
    everybody = set(range(m + n))
    aucs = []
    for members in itertools.combinations(everybody, m):
        x, y = (torch.tensor(sorted(s)).double() for s in (members, everybody - {*members}))
        aucs.append(area(x, y)[0])
    assert null_variance(m, n) == pytest.approx(statistics.pvariance(aucs), abs=1e-12)


@quick
@given(scores, scores, st.sampled_from([0.0, 0.001, 0.01, 0.04, 0.1, 0.29, 0.5, 1.0]))
def test_true_positive_rate_is_the_best_that_any_threshold_reaches(x, y, allowed):
    thresholds = [*x.tolist(), *y.tolist(), math.inf]
    best = max(
        float((x >= t).double().mean())
        for t in thresholds
        if int((y >= t).sum()) <= allowed * len(y) + 1e-9
    )
    assert true_positive_rate(x, y, allowed) == pytest.approx(best, abs=1e-12)


def test_low_values_speak_for_members():
    low, high = torch.zeros(4), torch.ones(5)
    assert attack("loss", low, high).auc == 1
    assert attack("loss", high, low).auc == 0
    assert attack("loss", low, high).true_positive_rates == ((0.01, 1.0), (0.001, 1.0))


def test_separable_small_samples_claim_no_certainty():
    three = attack("loss", torch.zeros(3), torch.ones(3))
    assert area(torch.ones(3), torch.zeros(3)) == (1.0, 0.0)
    low, high = three.interval(0.95)
    assert low == pytest.approx(1 - 1.959964 * math.sqrt(7 / 108), abs=1e-6)
    assert high == 1


@quick
@given(scores, scores, st.floats(0.5, 0.999))
def test_interval_holds_the_auc_stays_within_its_range_and_grows_with_confidence(x, y, confidence):
    made = attack("loss", x, y)
    low, high = made.interval(confidence)
    assert 0 <= low <= made.auc <= high <= 1
    wider = made.interval(0.9999)
    assert wider[0] <= low
    assert wider[1] >= high


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_interval_covers_the_true_auc_as_often_as_it_says(shift):
    generator = torch.Generator().manual_seed(8)
    truth = statistics.NormalDist().cdf(shift / math.sqrt(2))
    covered = 0
    for _ in range(600):
        x = torch.randn(60, generator=generator, dtype=torch.float64) - shift
        y = torch.randn(90, generator=generator, dtype=torch.float64)
        low, high = attack("loss", x, y).interval(0.95)
        covered += low <= truth <= high
    # A binomial of 600 at 0.95 has a standard deviation of 0.9 %. Far from one half the floor under
    # the variance widens the interval on purpose.
    assert covered / 600 >= 0.92
    if shift == 0:
        assert covered / 600 <= 0.98


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_one_value_that_is_not_finite_leaves_nothing_to_say(bad, side):
    sides = [torch.rand(5), torch.rand(6)]
    sides[side][2] = bad
    made = attack("loss", *sides)
    assert math.isnan(made.auc)
    assert all(math.isnan(end) for end in made.interval(0.95))
    assert made.to_json(0.95)["auc"] is None
    assert made.to_json(0.95)["interval"] == [None, None]


def test_no_records_leave_nothing_to_say():
    assert math.isnan(attack("loss", torch.empty(0), torch.rand(3)).auc)
    assert math.isnan(attack("loss", torch.rand(3), torch.empty(0)).auc)


@pytest.mark.parametrize(("n", "room"), [(1_000, 0.1), (200, 0.1), (100, 0.08), (40, 0.1)])
def test_records_needed_is_the_first_number_whose_interval_fits(n, room):
    def half(m):
        return quantile(0.95) * math.sqrt(null_variance(m, n))

    needed = records_needed(n, room, 0.95)
    assert half(needed) <= room < half(needed - 1)


def test_too_few_unseen_records_cannot_be_made_up_for():
    assert records_needed(30, 0.1, 0.95) is None
    assert quantile(0.95) * math.sqrt(null_variance(10**9, 30)) > 0.1


def test_visible_deviation_never_exceeds_what_an_auc_can_show():
    assert visible_deviation(1, 1, 0.95) == 0.5
    assert visible_deviation(500, 500, 0.95) == pytest.approx(1.959964 * math.sqrt(1001 / 3e6))
