import math

import pytest
import torch
from scipy import stats
from torch.utils.data import Subset

from lethe.recipe import Recipe
from workers.unlearning.measurement import FOLDS, Part, measure
from workers.unlearning.utility import mean_loss_rise, metric_lost, student_quantile, student_within


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 31])
def test_students_distribution_is_scipys(degrees):
    for t in (0.0, 0.2, 1.0, 2.5, 40.0):
        expected = 1 - 2 * stats.t.sf(t, degrees)
        assert student_within(t, degrees) == pytest.approx(expected, abs=1e-12)
    for confidence in (0.6, 0.95, 0.999):
        expected = stats.t.ppf(confidence, degrees)
        assert student_quantile(confidence, degrees) == pytest.approx(expected, rel=1e-9)


def part(losses=None, folds=None, *, metric=0.0, records=100, folded=100, of_losses=False):
    mean = math.nan if losses is None else float(losses.mean())
    return Part(records, metric, mean, losses, folds, folded, of_losses)


def test_rise_of_the_mean_loss_has_the_paired_normal_interval():
    generator = torch.Generator().manual_seed(1)
    before, change = torch.rand(2, 100, generator=generator, dtype=torch.float64)
    found = mean_loss_rise(part(before), part(before + change), 0.95)
    half = stats.norm.ppf(0.95) * float(change.std()) / 10
    mean = float(change.mean())
    assert found.value == pytest.approx(mean)
    assert found.interval == pytest.approx((mean - half, mean + half))
    assert found.source == "records"


def test_metric_that_is_the_mean_loss_takes_its_interval_from_the_records():
    before, after = torch.rand(100).double(), torch.rand(100).double()
    parts = [part(v, metric=-float(v.mean()), of_losses=True) for v in (before, after)]
    assert metric_lost(*parts, 0.95) == mean_loss_rise(*parts, 0.95)
    assert metric_lost(*parts, 0.95).value == pytest.approx(parts[0].metric - parts[1].metric)


def test_metric_takes_its_interval_from_paired_folds():
    before, after = torch.rand(2, FOLDS, generator=torch.Generator().manual_seed(2)).double()
    whole = metric_lost(part(folds=before, metric=0.9), part(folds=after, metric=0.8), 0.95)
    expected = stats.ttest_rel(before.numpy(), after.numpy()).confidence_interval(0.9)
    half = (expected.high - expected.low) / 2
    assert whole.value == pytest.approx(0.1)
    assert whole.interval == pytest.approx((0.1 - half, 0.1 + half))
    # Of four times as many records than were folded, the metric is known twice as well.
    quarter = [part(folds=folds, records=400, folded=100) for folds in (before, after)]
    low, high = metric_lost(*quarter, 0.95).interval
    assert high - low == pytest.approx(half)


def test_sets_that_are_not_the_same_are_not_paired():
    assert metric_lost(part(folds=torch.rand(10)), part(), 0.95).interval is None
    small, large = part(torch.rand(100)), part(torch.rand(120), records=120)
    assert mean_loss_rise(small, large, 0.95).interval is None


def test_folds_are_disjoint_drawn_and_the_same_for_each_model(trained, monkeypatch):
    seen = []

    def metric(self, model, dataset):
        seen.append(tuple(tuple(x.tolist()) for x, _ in dataset))
        return 0.5

    monkeypatch.setattr(type(trained.recipe), "metric", metric)
    few, data = Subset(trained.forget, range(20)), (trained.retain, trained.holdout)
    for _ in range(2):
        measure(trained.recipe, trained.model(), few, *data, 0.95)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert first == second
    # The forget set whole; the others whole and in folds.
    retained = first[2 : 2 + FOLDS]
    assert [len(fold) for fold in retained] == [24] * FOLDS
    assert sorted(x for fold in retained for x in fold) == sorted(first[1])
    assert retained[0] != first[1][:24]


def test_metric_that_refuses_a_fold_has_no_interval_and_fails_nothing(trained, monkeypatch):
    def metric(self, model, dataset):
        if len(dataset) < 100:
            raise ValueError("only one class in this set")
        return 0.5

    monkeypatch.setattr(type(trained.recipe), "metric", metric)
    measured = measure(
        trained.recipe, trained.model(), trained.forget, trained.retain, trained.holdout, 0.95
    )
    assert measured.retain.metric == 0.5
    assert measured.retain.folds is None
    lost = metric_lost(measured.retain, measured.retain, 0.95)
    assert (lost.value, lost.interval) == (0, None)


def test_recipe_without_a_metric_of_its_own_is_not_asked_for_folds(trained, monkeypatch):
    monkeypatch.setattr(type(trained.recipe), "metric", Recipe.metric)
    measured = measure(
        trained.recipe, trained.model(), trained.forget, trained.retain, trained.holdout, 0.95
    )
    assert measured.retain.metric_is_loss
    assert measured.retain.folds is None
    assert metric_lost(measured.retain, measured.retain, 0.95).source == "records"


def test_too_few_records_are_not_folded(trained):
    few = Subset(trained.retain, range(99))
    measured = measure(trained.recipe, trained.model(), trained.forget, few, trained.holdout, 0.95)
    assert measured.retain.folds is None
    assert measured.holdout.folds is not None


def test_records_kept_to_pair_models_are_in_no_json_and_no_repr(trained):
    few = Subset(trained.forget, range(20))
    measured = measure(trained.recipe, trained.model(), few, few, few, 0.95)
    assert set(measured.retain.to_json()) == {"records", "metric", "mean_loss"}
    assert "tensor" not in repr(measured)
