import pytest
import torch
from torch.utils.data import Subset

from lethe.policy import NablaTauOptions
from workers.unlearning.errors import EmptySet
from workers.unlearning.nabla_tau import NablaTau
from workers.unlearning.nabla_tau_schedule import schedule_for


def test_batch_statistics_are_frozen_in_eval_mode_only(trained_with_batch_norm, context):
    one = trained_with_batch_norm
    for mode, frozen in (("eval", True), ("train", False)):
        options = NablaTauOptions(batch_size=60, network_mode=mode)
        state = (
            NablaTau(options)
            .unlearn(one.model(), one.forget, one.retain, one.holdout, context(one.recipe))
            .state
        )
        assert torch.equal(state["1.running_mean"], one.state["1.running_mean"]) is frozen


@pytest.mark.parametrize(
    ("forget", "retain", "epochs", "alpha", "restart_every"),
    [
        (7_500, 42_500, 16, 0.25, 5),  # the authors' CIFAR-10: 30 and 167 batches
        (15_000, 35_000, 6, 0.5, 2),  # the authors' CIFAR-100: 59 and 137 batches
        (100, 100, 3, 5 / 6, 1),
        (900, 100, 1, 1.0, 1),  # more to forget than to retain
    ],
)
def test_schedule_follows_from_the_sizes(forget, retain, epochs, alpha, restart_every):
    schedule = schedule_for(NablaTauOptions(), forget, retain)
    assert schedule.epochs == epochs
    assert schedule.alpha_start == pytest.approx(alpha)
    assert schedule.alpha_decay == pytest.approx(alpha / epochs)
    assert schedule.rate_end == 0.1
    assert (schedule.rests, schedule.fused) == (False, False)  # as published, to the bit
    assert schedule.restart_every == restart_every


def test_given_options_win_over_the_sizes():
    schedule = schedule_for(NablaTauOptions(epochs=9, alpha_start=0.0), 10, 1_000)
    assert (schedule.epochs, schedule.alpha_start) == (9, 0.0)


@pytest.mark.parametrize(
    ("forget", "retain", "forget_batch", "epochs", "alpha", "rests"),
    [
        (20, 19_980, 20, 15, 0.1238, False),  # a single batch an epoch
        (200, 19_800, 64, 15, 0.3099, False),
        (1_000, 19_000, 64, 15, 0.5064, False),  # 16 batches beside 297
        (2_000, 18_000, 89, 15, 0.6199, True),
        (6_000, 14_000, 343, 15, 0.7622, True),
        (12_000, 8_000, 512, 7, 0.8571, True),  # no batch is larger
        (104, 496, 64, 15, 0.4741, False),  # six fifths of a pass would be ten steps
        (900, 100, 450, 15, 0.7439, True),  # more to forget than to retain
    ],
)
def test_per_sample_visits_each_record_as_often_as_the_retained_data_allow(
    forget, retain, forget_batch, epochs, alpha, rests
):
    schedule = schedule_for(NablaTauOptions(), forget, retain, per_sample=True)
    assert (schedule.forget_batch, schedule.retain_batch) == (forget_batch, 64)
    assert schedule.epochs == epochs
    assert schedule.alpha_start == pytest.approx(alpha, abs=1e-4)
    assert (schedule.alpha_decay, schedule.rate_end) == (0, 0)
    assert schedule.learning_rate == (1.75e-3 if rests else 1.5e-3)
    assert schedule.restart_every >= epochs
    assert (schedule.rests, schedule.fused) == (rests, True)


def test_records_rest_as_soon_as_their_visits_cost_more_than_the_retained_ones_and_in_eval_mode():
    # 338.4 steps of 64 retained records beside 15 visits of each record to forget.
    for forget, rests in ((1_443, False), (1_444, True)):
        assert schedule_for(NablaTauOptions(), forget, 18_000, per_sample=True).rests is rests
    in_train_mode = NablaTauOptions(network_mode="train")
    assert not schedule_for(in_train_mode, 2_000, 18_000, per_sample=True).rests


def test_given_options_win_per_sample_too():
    options = NablaTauOptions(epochs=9, alpha_start=0.0)
    schedule = schedule_for(options, 10, 1_000, per_sample=True)
    assert (schedule.epochs, schedule.alpha_start, schedule.alpha_decay) == (9, 0.0, 0.0)


def test_alpha_and_learning_rate_sink_epoch_by_epoch(trained, context):
    options = NablaTauOptions(batch_size=60, epochs=4, alpha_start=0.8)
    evidence = (
        NablaTau(options)
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe),
        )
        .evidence
    )
    assert evidence["first_epoch"]["alpha"] == 0.8
    assert evidence["last_epoch"]["alpha"] == pytest.approx(0.2)
    assert evidence["first_epoch"]["learning_rate"] == 1e-3
    assert evidence["last_epoch"]["learning_rate"] == pytest.approx(1e-3 * (1 - 0.9 * 3 / 4))


def test_more_forget_than_retain_batches_pass_over_the_retain_set_again(trained, context):
    few = Subset(trained.retain, range(20))
    fractions = []
    context = context(trained.recipe, progress=lambda _, done: fractions.append(done))
    NablaTau(NablaTauOptions(batch_size=10)).unlearn(
        trained.model(), trained.forget, few, trained.holdout, context
    )
    assert fractions == pytest.approx([step / 12 for step in range(1, 13)])


def test_loss_of_unseen_data_is_a_ceiling(trained, context):
    # With α = 1 throughout the first epoch and no decay, only ReLU(L_val − L_f)² moves weights:
    # nothing at all once the forget loss lies above that of the validation data.
    known, unknown = trained.forget, trained.holdout
    options = NablaTauOptions(epochs=1, alpha_start=1.0, weight_decay=0.0, batch_size=800)
    raised, resting = (
        NablaTau(options).unlearn(
            trained.model(), forget, trained.retain, validation, context(trained.recipe)
        )
        for forget, validation in ((known, unknown), (unknown, known))
    )
    assert raised.evidence["step_norm"] > 0
    assert resting.evidence["step_norm"] == 0


@pytest.mark.parametrize("which", ["forget", "retain", "holdout"])
def test_each_set_must_hold_records(trained, context, which):
    sets = {"forget": trained.forget, "retain": trained.retain, "holdout": trained.holdout}
    sets[which] = Subset(trained.holdout, [])
    with pytest.raises(EmptySet, match=which):
        NablaTau(NablaTauOptions()).unlearn(
            trained.model(), **sets, context=context(trained.recipe)
        )
