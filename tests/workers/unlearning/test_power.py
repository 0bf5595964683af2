import math

import pytest
import torch
from scipy import stats

from lethe.policy import Bounds
from workers.unlearning.attacks import attack
from workers.unlearning.checks import equivalent
from workers.unlearning.power import passing_probability, power_of, visible_deviation


def of(m, n, bounds=None):
    return power_of(attack("loss", torch.rand(m), torch.rand(n)), bounds or Bounds())


def test_visible_deviation_never_exceeds_what_an_auc_can_show():
    assert visible_deviation(1, 1, 0.95) == 0.5
    assert visible_deviation(500, 500, 0.95) == pytest.approx(1.644854 * math.sqrt(1001 / 3e6))


@pytest.mark.parametrize("deviation", [0.0, 0.03, 0.09])
def test_passing_probability_is_how_often_a_normal_estimate_passes(deviation):
    error, bounds = 0.03, Bounds()
    drawn = torch.randn(200_000, generator=torch.Generator().manual_seed(1)).double()
    estimates = 0.5 + deviation + error * drawn
    half = stats.norm.ppf(0.95) * error
    fits = (estimates - half >= 0.4) & (estimates + half <= 0.6)
    expected = passing_probability(deviation, error, bounds)
    assert float(fits.double().mean()) == pytest.approx(expected, abs=0.005)


def test_leak_at_the_margin_passes_no_more_often_than_the_confidence_allows():
    for error in (0.01, 0.03, 0.06):
        assert passing_probability(0.1, error, Bounds()) <= 0.05 + 1e-9
    # With no room at all, nothing passes.
    assert passing_probability(0.0, 0.061, Bounds()) == 0


def test_passing_deviation_is_the_last_that_passes_with_its_probability():
    power, bounds = of(300, 2_000), Bounds()
    error = math.sqrt(2_301 / (12 * 300 * 2_000))
    found = power.passing_deviation
    assert power.probability == 0.8
    assert passing_probability(found, error, bounds) == pytest.approx(0.8, abs=1e-9)
    assert passing_probability(found + 0.001, error, bounds) < 0.8


@pytest.mark.parametrize("n", [200, 5_000])
def test_records_needed_are_the_fewest_with_which_a_perfect_result_passes(n):
    needed = of(5, n).records_needed
    assert of(5, n).passing_deviation is None
    assert of(needed, n).passing_deviation is not None
    assert of(needed - 1, n).passing_deviation is None


def test_too_few_never_seen_records_leave_no_number_that_would_do():
    power = of(10_000, 60)
    assert power.passing_deviation is None
    assert power.records_needed is None


def test_no_records_have_no_power():
    assert of(0, 5) is None
    assert of(5, 0) is None


def test_true_leak_at_the_margin_is_passed_as_seldom_as_the_confidence_says():
    # The whole way from scores to the check, against the margin's own definition.
    generator = torch.Generator().manual_seed(6)
    shift = math.sqrt(2) * stats.norm.ppf(0.6)
    outcomes = []
    for _ in range(500):
        x, y = torch.randn(500, generator=generator, dtype=torch.float64).split([200, 300])
        outcomes.append(equivalent(attack("loss", x - shift, y), Bounds()).outcome)
    # A binomial of 500 at 5 % has a standard deviation of 1 %.
    assert 0.01 < outcomes.count("passed") / 500 < 0.085
    assert 0.01 < outcomes.count("failed") / 500 < 0.085
