import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workers.unlearning.individuals import chi_square_survival, individuals, p_values

# A busy machine is no fault of the code.
quick = settings(max_examples=40, deadline=None)

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-4, 4), min_size=1, max_size=25).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@quick
@given(scores, scores)
def test_p_value_counts_the_never_seen_that_look_at_least_as_known(x, y):
    expected = [(1 + sum(b >= a for b in y.tolist())) / (len(y) + 1) for a in x.tolist()]
    assert p_values(x, y).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("half", "pairs"), [(0.0, 1), (0.3, 1), (4.0, 3), (60.0, 20), (9.0, 40)])
def test_survival_is_that_of_chi_square_with_twice_as_many_degrees(half, pairs):
    assert chi_square_survival(half, pairs) == pytest.approx(
        stats.chi2.sf(2 * half, 2 * pairs), rel=1e-10
    )


@pytest.mark.parametrize("off", [-3, 0, 3, 8])
def test_survival_neither_overflows_nor_loses_itself_among_many_records(off):
    pairs = 100_000
    half = pairs + off * math.sqrt(pairs)
    assert chi_square_survival(half, pairs) == pytest.approx(
        stats.chi2.sf(2 * half, 2 * pairs), rel=1e-6
    )


def test_summary_of_the_p_values_is_what_scipy_makes_of_them():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(320, generator=generator, dtype=torch.float64).split([20, 300])
    x += 0.5
    found = individuals(x, y)
    p = p_values(x, y)
    assert found.smallest == float(p.min())
    assert found.bonferroni == pytest.approx(min(1, 20 * float(p.min())))
    assert found.fisher == pytest.approx(stats.combine_pvalues(p.numpy()).pvalue, rel=1e-9)
    assert found.resolution == pytest.approx(1 / 301)
    assert found.notable == sum(value < 0.01 for value in p.tolist())


def test_number_of_notable_records_expected_is_what_chance_brings():
    # Of the 300 equally likely p-values, 1/300 and 2/300 are below 0.01; 3/300 is not.
    y = torch.arange(299, dtype=torch.float64)
    everywhere = torch.arange(300, dtype=torch.float64) - 0.5  # one forgotten record at each rank
    found = individuals(everywhere, y)
    assert found.notable == 2
    assert found.expected == pytest.approx(2)
    # 98 never-seen records resolve no p-value below 1/99.
    assert individuals(everywhere, y[:98]).expected == 0


def test_one_record_in_many_is_told_apart_only_where_it_stands_out():
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(1_010, generator=generator, dtype=torch.float64).split([10, 1_000])
    hidden = individuals(x, y)
    x[4] = 9.0
    known = individuals(x, y)
    assert hidden.bonferroni > 0.05
    assert known.bonferroni == pytest.approx(10 / 1_001)
    # The combined p-value is about all of them, and nine are as good as never seen.
    assert known.fisher > 0.005


def test_p_values_of_records_never_seen_are_as_small_as_chance_makes_them():
    generator = torch.Generator().manual_seed(3)
    small = 0
    for _ in range(400):
        x, y = torch.randn(205, generator=generator, dtype=torch.float64).split([5, 200])
        small += individuals(x, y).bonferroni < 0.1
    # Of 400, 10 % or less are expected, with a standard deviation of 1.5 %.
    assert 0.04 < small / 400 < 0.15


def test_json_tells_how_many_stand_out_and_not_which():
    x, y = torch.tensor([5.0, 0.5, 0.25]).double(), torch.arange(200).double() / 200
    told = individuals(x, y).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert all(isinstance(value, int | float) for value in told.values())
    assert told["records_below"] == 1
