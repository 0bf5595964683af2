"""∇τ, Gradient-based and Task-Agnostic machine Unlearning (arXiv 2403.14339)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lethe._passes import to_device
from lethe.policy import MethodName, NablaTauOptions
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned, require_records
from workers.unlearning.errors import NotFinite
from workers.unlearning.gradients import mean_loss
from workers.unlearning.nabla_tau_batches import endless, loader, numbered_loader
from workers.unlearning.nabla_tau_rest import Rest
from workers.unlearning.nabla_tau_schedule import Schedule, schedule_for
from workers.unlearning.nabla_tau_targets import Ceiling, Targets, targets_for
from workers.unlearning.weights import distance, finite_state, state_on_cpu

PHASE = "unlearn nabla_tau"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the forget set saw; losses are means over its steps, before each step.

    None where there is no such number: nobody came up, or no record has a target of its own.
    """

    alpha: float
    learning_rate: float
    validation_loss: float | None
    """L_val as last taken."""
    forget_loss: float | None
    retain_loss: float
    mean_target: float | None
    """Mean of the records' own targets."""
    below_target: float | None
    """Share of the records that came up whose loss was below their own target."""
    resting: float
    """Share of the records that did not come up."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A forget batch without those at rest, its records' positions, (B,), and B with them."""

    batch: Any
    positions: Tensor
    size: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Mean losses of a forget and of a retain batch, and the forget records' shortfalls, (B,)."""

    forget_loss: float | None
    retain_loss: float
    shortfalls: Tensor | None


@dataclass(frozen=True, slots=True)
class NablaTau:
    r"""Raise the loss of what to forget up to that of unseen data, and no further.

    With L_f and L_r the mean losses of a forget and of a retain batch, and L_val that of all
    validation data, a number without a gradient:

    .. math:: L = \alpha \, \mathrm{ReLU}(L_{val} - L_f)^2 + (1 - \alpha) \, L_r

    ReLU and square act on the batch means. A step takes one forget batch and the next retain
    batch, and one backward pass through both; an epoch is one pass over the forget set. Both sets
    are shuffled by one generator. L_val is taken anew, in eval mode, every ``refresh_epochs``
    epochs from the first. α begins at α₀ = (5/3)·|D_f| / (|D_f| + |D_r|), at most 1, and sinks by
    α₀/E after each of the E = ⌊3·R/F⌋ epochs, at least 1, where R and F count the batches of
    D_r and D_f. AdamW; its learning rate falls linearly, epoch by epoch, towards a tenth after E.

    The pass over the retain set goes on from epoch to epoch and begins anew every ⌊R/F⌋ epochs.
    The authors' code fails where R < F; here the pass then begins anew in each epoch and whenever
    it is used up.

    That raises the average, and leaves records far below what they would show had they never been
    seen, hidden behind others above it. With ``per_sample`` targets, which are not the paper's,
    each record i has its own: τ_i, its mean loss under reference models that never saw it, or
    L_val where that is unknown. In a forget batch of B records

    .. math::

        L = \alpha \, \frac{1}{B} \sum_i \mathrm{ReLU}(\tau_i - \ell_i)
          + (1 - \alpha) \, L_r

    without the square, with which a few records of very high targets move everything. S steps, each
    with b_r retained records, are six fifths of a pass over the retain set, or 30 if that is
    more; E is what makes S steps, at most 15; no pass is cut short. α stays as it is, w / (1 + w)
    with w² = 20·|D_f| / (b_r·max(R, 40)). The learning rate falls to nothing, step by step. All
    else is as above, but for the optimiser's step, which one kernel takes where it can: the same to
    rounding. ``auto`` takes ``per_sample`` where the context knows the target of at least one
    record, and ``validation`` elsewhere.

    Most records are easy, lie at their targets from the start, and would be visited for nothing. So
    where the visits cost more than the retained records do, 15·|D_f| > S·b_r, and in eval mode, a
    record whose ReLU(τ_i − ℓ_i) was at most a tenth of the first epoch's mean of it *rests* for two
    epochs: it is left out of the batches that it is drawn for, and counts in B as if its term were
    zero. Visits being fewer, w² is then 24/20 and the learning rate 7/6 of what they are otherwise.

    ``network_mode`` is eval in the authors' two CIFAR notebooks, and train in the one that varies
    split and α and in the one for text.

    Source: ``Unlearning_main_*.ipynb`` of github.com/dnl-trpp/Nabla-Tau. The one for text squares
    before the ReLU, which leaves the ReLU without effect; here it is the formula above.

    Raises:
        Cancelled: between batches.
        EmptySet: one of the three sets is empty.
        NoReferences: the targets are to be per sample, and not one is known.
        NotFinite: a loss or a new weight is NaN or infinite.
        ValueError: the context's targets do not go with the forget set; or PyTorch's own, in train
            mode, where a batch of one record meets batch normalisation.

    """

    options: NablaTauOptions
    name: ClassVar[MethodName] = "nabla_tau"

    def unlearn(
        self,
        model: nn.Module,
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,
        context: Context,
    ) -> Unlearned:
        """Return the weights after all epochs; ``holdout`` is the validation data."""
        require_records(forget=forget, retain=retain, holdout=holdout)
        targets = targets_for(self.options.targets, context, len(forget))
        own = targets.own
        started = time.monotonic()
        before = state_on_cpu(model)
        schedule = schedule_for(
            self.options, len(forget), len(retain), per_sample=own is not None
        ).within(context.largest_batch)
        with context.seeded():
            epochs = list(self._epochs(model, forget, retain, holdout, context, schedule, targets))
            state = finite_state(model)
            forget_loss_after = mean_loss(model, forget, context)
        moved = distance(before, state, [name for name, _ in model.named_parameters()])
        evidence: dict[str, Any] = {
            "method": self.name,
            **self.options.model_dump(mode="json"),
            **asdict(schedule),
            "targets": "validation" if own is None else "per_sample",
            "targets_known": 0 if own is None else len(forget) - int(own.isnan().sum()),
            "seed": context.seed,
            "records": {"forget": len(forget), "retain": len(retain), "validation": len(holdout)},
            "first_epoch": asdict(epochs[0]),
            "last_epoch": asdict(epochs[-1]),
            "forget_loss": {
                "after": forget_loss_after if math.isfinite(forget_loss_after) else None
            },
            "step_norm": moved.norm,
            "seconds": time.monotonic() - started,
        }
        return Unlearned(state, "approximate", evidence)

    def _epochs(
        self,
        model: nn.Module,
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,
        context: Context,
        schedule: Schedule,
        targets: Targets,
    ) -> Iterator[Epoch]:
        options = self.options
        generator = torch.Generator().manual_seed(context.seed)
        size, rest = schedule.forget_batch, Rest(len(forget))
        forget_loader = numbered_loader(forget, size, context, generator, lambda: rest.resting)
        retain_loader = loader(retain, schedule.retain_batch, context, generator)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=schedule.learning_rate,
            weight_decay=options.weight_decay,
            fused=schedule.fused and _can_be_fused(model),
        )
        scheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer,
            start_factor=1.0,
            end_factor=schedule.rate_end,
            total_iters=schedule.epochs * (len(forget_loader) if schedule.anneal_each_step else 1),
        )
        alpha, validation_loss = schedule.alpha_start, math.nan
        retain_batches: Iterator[Any] = iter(())
        for epoch in range(schedule.epochs):
            if targets.need_validation and epoch % options.refresh_epochs == 0:
                validation_loss = _finite(mean_loss(model, holdout, context), "validation")
            ceiling = targets.given(validation_loss)
            if epoch % schedule.restart_every == 0:
                retain_batches = endless(retain_loader)
            model.train(options.network_mode == "train")
            rate, resting, steps = float(optimizer.param_groups[0]["lr"]), rest.share, []
            for step, (batch, positions) in enumerate(forget_loader, start=1):
                context.check()
                optimizer.zero_grad()
                drawn = _Drawn(batch, positions, min(size, len(forget) - (step - 1) * size))
                done = _backward(model, drawn, next(retain_batches), context, alpha, ceiling)
                if schedule.rests and done.shortfalls is not None:
                    rest.met(positions, done.shortfalls)
                steps.append(done)
                optimizer.step()
                if schedule.anneal_each_step:
                    scheduler.step()
                context.progress(PHASE, (epoch + step / len(forget_loader)) / schedule.epochs)
            yield _epoch(alpha, rate, validation_loss, ceiling, steps, resting)
            if schedule.rests:
                rest.end_epoch()
            alpha -= schedule.alpha_decay
            if not schedule.anneal_each_step:
                scheduler.step()


def _backward(
    model: nn.Module,
    drawn: _Drawn,
    retain_batch: Any,
    context: Context,
    alpha: float,
    ceiling: Ceiling,
) -> _Step:
    recipe, device = context.recipe, context.device
    forget_loss, shortfalls, term = None, None, None
    # In train mode, batch normalisation sees the forget batch first and the retain batch last.
    if len(drawn.positions):
        losses = recipe.losses(model, to_device(drawn.batch, device))  # (B,)
        term, shortfalls = ceiling.term(losses, drawn.positions, drawn.size)  # (), (B,)
        forget_loss = _finite(losses.mean().item(), "forget")
    L_r = recipe.losses(model, to_device(retain_batch, device)).mean()  # ()
    retain_loss = _finite(L_r.item(), "retain")
    loss = (1 - alpha) * L_r if term is None else alpha * term + (1 - alpha) * L_r  # ()
    torch.autograd.backward(loss)
    return _Step(forget_loss, retain_loss, shortfalls)


def _epoch(
    alpha: float,
    learning_rate: float,
    validation_loss: float,
    ceiling: Ceiling,
    steps: Sequence[_Step],
    resting: float,
) -> Epoch:
    seen = [step.forget_loss for step in steps if step.forget_loss is not None]
    met = [step.shortfalls for step in steps if step.shortfalls is not None]
    return Epoch(
        alpha,
        learning_rate,
        None if math.isnan(validation_loss) else validation_loss,
        sum(seen) / len(seen) if seen else None,
        sum(step.retain_loss for step in steps) / len(steps),
        ceiling.mean,
        float((torch.cat(met) > 0).double().mean()) if met else None,
        resting,
    )


def _can_be_fused(model: nn.Module) -> bool:
    trained = [p for p in model.parameters() if p.requires_grad]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trained)


def _finite(loss: float, which: str) -> float:
    if not math.isfinite(loss):
        raise NotFinite(f"the mean loss of the {which} set")
    return loss
