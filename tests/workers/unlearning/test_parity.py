"""Each method against a plain loop, written anew from the authors' code and without our parts."""

from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lethe.policy import IauOptions, NablaTauOptions
from workers.unlearning.iau import Iau
from workers.unlearning.nabla_tau import NablaTau


def columns(dataset):
    return [torch.stack(column) for column in zip(*dataset, strict=True)]


def authors_iau(model, retain, forget, rate, optimizer=torch.optim.Adam):
    """Two full batches, the second one's loss negated, gradients added up, one step."""
    stepper = optimizer(model.parameters(), lr=rate)
    for data, sign in ((retain, 1), (forget, -1)):
        x, y = columns(data)
        (sign * nn.CrossEntropyLoss()(model(x), y)).backward()
    stepper.step()
    return model.state_dict()


def authors_nabla_tau(
    model, forget, retain, validation, *, seed, batch_size, epochs, alpha, mode, refresh
):
    """The loop of the CIFAR notebooks, its diagnostics left out."""
    shared = torch.Generator().manual_seed(seed)
    forget_loader, retain_loader = (
        DataLoader(data, batch_size=batch_size, shuffle=True, generator=shared)
        for data in (forget, retain)
    )
    each = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, epochs)
    start = alpha
    for epoch in range(epochs):
        model.eval()
        if epoch % refresh == 0:
            unseen_x, unseen_y = validation.tensors
            ceiling = each(model(unseen_x), unseen_y).mean().item()
        if epoch % (len(retain_loader) // len(forget_loader)) == 0:
            remaining = iter(retain_loader)
        model.train(mode == "train")
        for x, y in forget_loader:
            model.zero_grad()
            forget_mean = each(model(x), y).mean()
            x_r, y_r = next(remaining)
            retain_mean = each(model(x_r), y_r).mean()
            short = torch.clamp(ceiling - forget_mean, min=0)
            (alpha * short**2 + (1 - alpha) * retain_mean).backward()
            optimizer.step()
        alpha -= start / epochs
        scheduler.step()
    return model.state_dict()


def plain_per_sample(
    model, forget, retain, validation, targets, *, seed, sizes, rate, epochs, alpha, mode, refresh
):
    """Record by record, whose targets and numbers are two more columns; counts visits, too."""
    shared = torch.Generator().manual_seed(seed)
    numbered = (*columns(forget), targets, torch.arange(len(forget)))
    forget_loader, retain_loader = (
        DataLoader(TensorDataset(*data), batch_size=size, shuffle=True, generator=shared)
        for data, size in zip((numbered, columns(retain)), sizes, strict=True)
    )
    each = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    remaining = iter(retain_loader)
    done, steps = 0, epochs * len(forget_loader)
    asleep, visits = {}, []
    # 15 visits of each record beside the retained ones of 30 steps, on data as small as these.
    may_rest = mode == "eval" and 15 * len(forget) > 30 * sizes[1]
    for epoch in range(epochs):
        model.eval()
        if epoch % refresh == 0:
            unseen_x, unseen_y = validation.tensors
            stand_in = each(model(unseen_x), unseen_y).mean().item()
        model.train(mode == "train")
        lacking = {}
        for x, y, tau, number in forget_loader:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - done / steps)
            done += 1
            model.zero_grad()
            up = [i for i, n in enumerate(number.tolist()) if asleep.get(n, 0) <= epoch]
            losses = each(model(x[up]), y[up]) if up else []
            term = 0.0
            for loss, i in zip(losses, up, strict=True):
                aim = stand_in if tau[i] != tau[i] else tau[i].item()
                lacking[int(number[i])] = max(aim - loss.item(), 0.0)
                if loss.item() < aim:
                    term = term + (aim - loss) / len(x)
            batch = next(remaining, None)
            if batch is None:
                remaining = iter(retain_loader)
                batch = next(remaining)
            (alpha * term + (1 - alpha) * each(model(batch[0]), batch[1]).mean()).backward()
            optimizer.step()
        visits.append(len(lacking))
        if epoch == 0:
            little = sum(lacking.values()) / len(lacking) / 10
        if may_rest:
            for number_, short in lacking.items():
                if short <= little:
                    asleep[number_] = epoch + 3  # two epochs are left out
    return model.state_dict(), visits


def assert_same_step(start, actual, expected):
    """Relative L2 error of the whole step, buffers included, of at most 1e-10."""
    assert actual.keys() == expected.keys()
    off = moved = 0.0
    for name, tensor in expected.items():
        off += float((actual[name].double() - tensor.double()).square().sum())
        moved += float((tensor.double() - start[name].double()).square().sum())
    assert moved > 0
    assert off <= 1e-20 * moved


@pytest.mark.parametrize("rate", [1e-3, 0.05])
@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_iau_is_the_authors_script(trained, context, rate, rule):
    unlearned = Iau(IauOptions(rule=rule, learning_rate=rate)).unlearn(
        trained.model(), trained.forget, trained.retain, trained.holdout, context(trained.recipe)
    )
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[rule]
    expected = authors_iau(trained.model(), trained.retain, trained.forget, rate, optimizer)
    assert_same_step(trained.state, unlearned.state, expected)


# Loaders of 7 and 14 batches at 18: E = 6, and the retain pass begins anew every 2 epochs.
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("refresh", [2, 5])
def test_nabla_tau_is_the_authors_loop(trained_with_batch_norm, context, mode, refresh):
    one = trained_with_batch_norm
    expected = authors_nabla_tau(
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
    for targets, option in ((None, "auto"), (torch.ones(120).double(), "validation")):
        options = NablaTauOptions(
            targets=option, batch_size=18, network_mode=mode, refresh_epochs=refresh
        )
        unlearned = NablaTau(options).unlearn(
            one.model(),
            one.forget,
            one.retain,
            one.holdout,
            replace(context(one.recipe, seed=5), targets=targets),
        )
        assert_same_step(one.state, unlearned.state, expected)


# Forget and retain batches: at 18, 7 and 14; at 24, 5 and 10, at 90, 2 and 3, and at 120, 1 and 2,
# whose epochs begin another pass midway; left open, two sizes, for less than a batch to forget.
# What is left open is the schedule's to say and tested with it; here the evidence says what it is.
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("batch_size", "epochs"), [(18, 2), (24, 5), (90, 2), (120, 5), (None, 3)])
@pytest.mark.parametrize("unknown", [0, 17])
def test_nabla_tau_per_sample_is_the_plain_loop(
    trained_with_batch_norm, context, mode, batch_size, epochs, unknown
):
    one = trained_with_batch_norm
    drawn = torch.rand(120, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    drawn[torch.arange(unknown) * 7] = torch.nan
    records = 120 if batch_size else 40
    forget, drawn = Subset(one.forget, range(records)), drawn[:records]
    options = NablaTauOptions(
        targets="per_sample",
        batch_size=batch_size,
        epochs=epochs,
        network_mode=mode,
        refresh_epochs=2,
    )
    unlearned = NablaTau(options).unlearn(
        one.model(),
        forget,
        one.retain,
        one.holdout,
        replace(context(one.recipe, seed=5), targets=drawn),
    )
    sizes = unlearned.evidence["forget_batch"], unlearned.evidence["retain_batch"]
    assert (sizes[0] == sizes[1] == batch_size) is (sizes[0] == sizes[1]) is bool(batch_size)
    expected, visits = plain_per_sample(
        one.model(),
        forget,
        one.retain,
        one.holdout,
        drawn,
        seed=5,
        sizes=sizes,
        rate=unlearned.evidence["learning_rate"],
        epochs=epochs,
        alpha=unlearned.evidence["alpha_start"],
        mode=mode,
        refresh=2,
    )
    assert_same_step(one.state, unlearned.state, expected)
    assert unlearned.evidence["last_epoch"]["resting"] == pytest.approx(1 - visits[-1] / records)
    assert (min(visits) < records) is (mode == "eval" and batch_size in (18, 24))


def test_steps_in_which_everybody_rests_are_those_of_the_plain_loop(trained, context):
    own = torch.full((120,), -1.0, dtype=torch.float64)  # nobody is below
    options = NablaTauOptions(targets="per_sample", batch_size=18, epochs=2)
    unlearned = NablaTau(options).unlearn(
        trained.model(),
        trained.forget,
        trained.retain,
        trained.holdout,
        replace(context(trained.recipe), targets=own),
    )
    expected, visits = plain_per_sample(
        trained.model(),
        trained.forget,
        trained.retain,
        trained.holdout,
        own,
        seed=5,
        sizes=(18, 18),
        rate=unlearned.evidence["learning_rate"],
        epochs=2,
        alpha=unlearned.evidence["alpha_start"],
        mode="eval",
        refresh=5,
    )
    assert visits == [120, 0]
    assert_same_step(trained.state, unlearned.state, expected)


def test_loops_tell_one_seed_from_another(trained, context):
    # The negative control: agreement is of the very order of records, not of the rough course.
    seeds = count(5)
    states = [
        NablaTau(NablaTauOptions(batch_size=18))
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe, seed=next(seeds)),
        )
        .state
        for _ in range(2)
    ]
    with pytest.raises(AssertionError):
        assert_same_step(trained.state, *states)
