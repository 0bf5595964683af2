import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from workers.unlearning.iau_calibration import (
    BISECTIONS,
    DOUBLINGS,
    TOLERANCE,
    find_length,
    shorten,
)


class Tried:
    """A function that keeps what it was asked."""

    def __init__(self, function):
        self.function, self.lengths = function, []

    def __call__(self, length):
        self.lengths.append(length)
        return self.function(length)


@pytest.mark.parametrize("first", [1e-3, 0.07, 3.0])
def test_search_ends_where_an_independent_root_finder_does(first):
    def loss(t):
        return 0.1 + 0.3 * t + t**3

    root = brentq(lambda t: loss(t) - 1.5, 0, 10)
    found = find_length(loss, loss(0), 1.5, first)
    assert found.reached
    assert found.length >= root
    assert 0 <= found.loss - 1.5 <= max(TOLERANCE * 1.4, loss(root + first / 4096) - 1.5)
    assert found.loss == loss(found.length)


@settings(max_examples=60, deadline=None)
@given(
    knots=st.lists(st.floats(-2, 2), min_size=3, max_size=12),
    first=st.floats(1e-3, 2),
    target=st.floats(0.1, 1.5),
)
def test_search_keeps_the_loss_at_or_above_its_target_where_it_rises_and_falls(
    knots, first, target
):
    def loss(t):
        position = t % (len(knots) - 1)
        low, share = int(position), position % 1
        return (1 - share) * knots[low] + share * knots[low + 1]

    tried = Tried(loss)
    found = find_length(tried, 0.0, target, first)
    assert found.loss == loss(found.length)
    assert found.reached == (found.loss >= target)
    assert len(tried.lengths) <= 1 + DOUBLINGS + BISECTIONS
    if not found.reached:
        assert found.length == first * 2**DOUBLINGS
        assert all(loss(length) < target for length in tried.lengths)


def test_search_gives_up_after_so_many_doublings():
    tried = Tried(lambda t: 1 - 1 / (1 + t))
    found = find_length(tried, 0.0, 2.0, 0.01)
    assert not found.reached
    assert found.limited_by == "bracket"
    assert tried.lengths == [0.01 * 2**power for power in range(DOUBLINGS + 1)]


@pytest.mark.parametrize("beyond", [math.inf, math.nan])
def test_search_takes_a_loss_that_is_not_finite_for_too_high(beyond):
    found = find_length(lambda t: t if t < 0.5 else beyond, 0.0, 0.3, 0.4)
    assert found.loss == pytest.approx(0.3, rel=2 * TOLERANCE)
    found = find_length(lambda t: t if t < 0.5 else beyond, 0.0, 0.3, 64.0)
    assert 0.3 <= found.loss < 0.5


def test_search_takes_no_step_where_the_target_is_met():
    def never(length):
        raise AssertionError("a pass for nothing")

    assert find_length(never, 0.7, 0.7, 1.0).length == 0
    with pytest.raises(AssertionError, match="for nothing"):
        find_length(never, 0.7, 0.7001, 1.0)


@pytest.mark.parametrize("edge", [0.0, 0.013, 0.5, 0.77, 2.0])
def test_step_is_shortened_to_the_edge_of_the_budget(edge):
    tried = Tried(lambda t: t <= edge)
    length = shorten(tried, 1.0)
    assert length <= edge
    assert length == 1 or edge - length < 1 / 256
    assert len(tried.lengths) <= 9
