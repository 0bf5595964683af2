"""Records of ∇τ that lack next to nothing sit out, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from lethe.policy import NablaTauOptions
from workers.unlearning.nabla_tau import NablaTau
from workers.unlearning.nabla_tau_batches import numbered_loader
from workers.unlearning.nabla_tau_rest import Rest


class Counted(Dataset):
    """Records that know how often they were looked at."""

    def __init__(self, data):
        self.data = data
        self.looks = [0] * len(data)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.looks[index] += 1
        return self.data[index]

    def __getitems__(self, indices):
        assert indices  # nobody asks for nothing
        return [self[index] for index in indices]


def who(rest, records):
    return {position for position in range(records) if position in rest.resting}


def met(rest, shortfalls):
    for position, shortfall in shortfalls.items():
        rest.met(torch.tensor([position]), torch.tensor([shortfall]))
    rest.end_epoch()


def losses(model, data):
    x, y = (torch.stack(column) for column in zip(*data, strict=True))
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y, reduction="none")


def unlearn(one, context, own, *, model=None, forget=None, **options):
    return NablaTau(NablaTauOptions(targets="per_sample", **options)).unlearn(
        one.model() if model is None else model,
        one.forget if forget is None else forget,
        one.retain,
        one.holdout,
        replace(context(one.recipe), targets=own),
    )


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_records_that_lack_a_tenth_of_the_mean_rest_for_two_epochs_whatever_the_unit(unit):
    rest = Rest(4)
    assert (who(rest, 4), rest.share) == (set(), 0)
    first = {0: 0.0, 1: 0.099 * unit, 2: 0.101 * unit, 3: 3.8 * unit}  # a mean of one unit
    met(rest, first)
    assert (who(rest, 4), rest.share) == ({0, 1}, 0.5)
    # What is little stays what it was: by the mean of this epoch, record 2 would be far above.
    met(rest, {2: 0.099 * unit, 3: 0.2 * unit})
    assert who(rest, 4) == {0, 1, 2}
    met(rest, {3: 0.2 * unit})
    assert who(rest, 4) == {2}
    met(rest, {0: 0.2 * unit, 1: 0.0, 3: 0.2 * unit})
    assert who(rest, 4) == {1}


def test_where_nobody_lacks_anything_everybody_rests():
    rest = Rest(2)
    met(rest, {0: 0.0, 1: 0.0})
    assert rest.share == 1
    for _ in range(2):
        met(rest, {})
    assert rest.share == 0


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_records_at_rest_are_not_even_looked_at_and_in_train_mode_nobody_rests(
    trained, context, mode
):
    now = losses(trained.model(), trained.forget)
    idle = torch.arange(120) < 50
    counted = Counted(trained.forget)
    # A rate so small that the losses stay what they are.
    evidence = unlearn(
        trained,
        context,
        torch.where(idle, now - 1.0, now + 1.0),
        forget=counted,
        network_mode=mode,
        learning_rate=1e-12,
        batch_size=20,
        epochs=5,
    ).evidence
    seen = torch.tensor(counted.looks)
    after = 1  # the mean loss at the end takes each once
    visits = {"eval": 2, "train": 5}[mode]  # in epochs 0 and 3
    assert (seen[idle] == visits + after).all()
    assert (seen[~idle] == 5 + after).all()
    share = {"eval": 50 / 120, "train": 0}[mode]
    assert evidence["first_epoch"]["resting"] == 0
    assert evidence["last_epoch"]["resting"] == pytest.approx(share)
    assert evidence["first_epoch"]["below_target"] == pytest.approx(70 / 120)
    assert evidence["last_epoch"]["below_target"] == pytest.approx(
        {"eval": 1.0, "train": 70 / 120}[mode]
    )
    awake = ~idle if mode == "eval" else idle | True
    assert evidence["last_epoch"]["forget_loss"] == pytest.approx(now[awake].mean().item(), rel=0.2)


def test_where_everybody_rests_the_retained_records_alone_move_weights(trained, context):
    one = unlearn(
        trained,
        context,
        torch.full((120,), -1.0, dtype=torch.float64),
        batch_size=50,
        epochs=3,
    )
    last = one.evidence["last_epoch"]
    assert (last["forget_loss"], last["below_target"], last["resting"]) == (None, None, 1)
    assert one.evidence["step_norm"] > 0
    assert one.evidence["first_epoch"]["forget_loss"] is not None


@pytest.mark.parametrize("at_once", [False, True])
def test_who_is_left_out_is_missing_from_the_very_batch_it_was_drawn_for(
    regression, context, at_once
):
    data = Counted(torch.arange(20.0)) if at_once else torch.arange(20.0)
    out = set()

    def batches():
        generator = torch.Generator().manual_seed(3)
        one = numbered_loader(data, 4, context(regression), generator, lambda: out)
        assert len(one) == 5
        return [[positions.tolist() for _, positions in one] for _ in range(2)], generator

    whole, undisturbed = batches()
    out |= {*whole[0][1], *whole[1][0][:2]}
    parts, generator = batches()
    assert parts == [[[p for p in batch if p not in out] for batch in epoch] for epoch in whole]
    assert parts[0][1] == []
    assert torch.equal(generator.get_state(), undisturbed.get_state())
    records = [
        batch
        for batch, positions in numbered_loader(
            data, 4, context(regression), torch.Generator(), lambda: range(20)
        )
    ]
    assert records == [None] * 5


def test_who_is_left_out_is_asked_anew_for_each_batch(regression, context):
    out = []
    numbered = numbered_loader(
        torch.arange(6.0), 2, context(regression), torch.Generator(), lambda: out
    )
    seen = []
    for _, positions in numbered:
        seen.append(len(positions))
        out = range(6)
    assert seen == [2, 0, 0]


class Turned(nn.Module):
    """A network with a complex number, which no fused optimiser takes."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.turn = nn.Parameter(torch.ones((), dtype=torch.complex128))

    def forward(self, x):
        return self.network(x) * self.turn.detach().real + 0 * self.turn.real


def test_parameters_that_cannot_be_fused_take_the_plain_step(trained, context):
    own = torch.linspace(0.1, 1.1, 120, dtype=torch.float64)
    odd = Turned(trained.model())
    stepper = torch.optim.AdamW(odd.parameters(), fused=True)
    odd(torch.zeros(1, 24, dtype=torch.float64)).sum().backward()
    with pytest.raises(RuntimeError, match="fused"):
        stepper.step()
    options = {"batch_size": 60, "weight_decay": 0.0}
    plain = unlearn(trained, context, own, model=Turned(trained.model()), **options)
    fused = unlearn(trained, context, own, **options)
    for name, tensor in fused.state.items():
        torch.testing.assert_close(plain.state[f"network.{name}"], tensor, rtol=1e-9, atol=1e-12)
