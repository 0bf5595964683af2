import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from lethe.policy import NablaTauOptions
from workers.unlearning.errors import EmptySet
from workers.unlearning.nabla_tau import NablaTau, schedule_for


def official(model, forget, retain, validation, *, seed, batch_size, epochs, alpha, mode, refresh):
    """The authors' loop, written anew and without its diagnostics."""
    generator = torch.Generator().manual_seed(seed)
    forget_loader, retain_loader = (
        DataLoader(data, batch_size=batch_size, shuffle=True, generator=generator)
        for data in (forget, retain)
    )
    criterion = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1.0, end_factor=0.1, total_iters=epochs
    )
    start = alpha
    for i in range(epochs):
        model.eval()
        if i % refresh == 0:
            x, y = validation.tensors
            val_loss = criterion(model(x), y).mean().item()
        if i % (len(retain_loader) // len(forget_loader)) == 0:
            retain_iter = iter(retain_loader)
        if mode == "train":
            model.train()
        for x, y in forget_loader:
            model.zero_grad()
            forget_mean = criterion(model(x), y).mean()
            x_r, y_r = next(retain_iter)
            retain_mean = criterion(model(x_r), y_r).mean()
            delta = torch.relu(val_loss - forget_mean) ** 2
            (alpha * delta + (1 - alpha) * retain_mean).backward()
            optimizer.step()
        alpha = alpha - start / epochs
        scheduler.step()
    return model.state_dict()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("refresh", [2, 5])
def test_weights_are_those_of_the_authors_loop(trained_with_batch_norm, context, mode, refresh):
    one = trained_with_batch_norm
    # Loaders of 7 and 14 batches at 18: E = 6, and the retain pass begins anew every 2 epochs.
    expected = official(
        one.model(),
        one.forget,
        one.retain,
        one.holdout,
        seed=5,
        batch_size=18,
        epochs=6,
        alpha=5 / 3 * 120 / 360,
        mode=mode,
        refresh=refresh,
    )
    options = NablaTauOptions(batch_size=18, network_mode=mode, refresh_epochs=refresh)
    unlearned = NablaTau(options).unlearn(
        one.model(), one.forget, one.retain, one.holdout, context(one.recipe, seed=5)
    )
    assert unlearned.guarantee == "approximate"
    for name, tensor in expected.items():
        torch.testing.assert_close(unlearned.state[name], tensor, rtol=1e-9, atol=1e-11)


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
    assert schedule.restart_every == restart_every


def test_given_options_win_over_the_sizes():
    schedule = schedule_for(NablaTauOptions(epochs=9, alpha_start=0.0), 10, 1_000)
    assert (schedule.epochs, schedule.alpha_start) == (9, 0.0)


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
