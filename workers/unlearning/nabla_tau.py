"""∇τ, Gradient-based and Task-Agnostic machine Unlearning (arXiv 2403.14339)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import relu
from torch.utils.data import DataLoader

from lethe._passes import to_device
from lethe.policy import MethodName, NablaTauOptions
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned, require_records
from workers.unlearning.errors import NotFinite
from workers.unlearning.gradients import mean_loss
from workers.unlearning.weights import distance, finite_state, state_on_cpu

PHASE = "unlearn nabla_tau"

Loader = DataLoader[Any]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The hyperparameters in effect, those included that follow from the sizes of the sets."""

    epochs: int
    """E, passes over the forget set."""
    alpha_start: float
    """α₀."""
    restart_every: int
    """Epochs after which the pass over the retain set begins anew."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the forget set saw; losses are means over its steps, before each step."""

    alpha: float
    learning_rate: float
    validation_loss: float
    forget_loss: float
    retain_loss: float


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

    ``network_mode`` is eval in the authors' two CIFAR notebooks, and train in the one that varies
    split and α and in the one for text.

    Source: ``Unlearning_main_*.ipynb`` of github.com/dnl-trpp/Nabla-Tau. The one for text squares
    before the ReLU, which leaves the ReLU without effect; here it is the formula above.

    Raises:
        Cancelled: between batches.
        EmptySet: one of the three sets is empty.
        NotFinite: a loss or a new weight is NaN or infinite.
        ValueError: PyTorch's own, in train mode, where a batch of one record meets batch
            normalisation.

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
        started = time.monotonic()
        before = state_on_cpu(model)
        schedule = schedule_for(self.options, len(forget), len(retain))
        with context.seeded():
            epochs = list(self._epochs(model, forget, retain, holdout, context, schedule))
            state = finite_state(model)
            forget_loss_after = mean_loss(model, forget, context)
        moved = distance(before, state, [name for name, _ in model.named_parameters()])
        evidence: dict[str, Any] = {
            "method": self.name,
            **self.options.model_dump(mode="json"),
            **asdict(schedule),
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
    ) -> Iterator[Epoch]:
        options = self.options
        generator = torch.Generator().manual_seed(context.seed)
        forget_loader = _loader(forget, options.batch_size, context, generator)
        retain_loader = _loader(retain, options.batch_size, context, generator)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.1, total_iters=schedule.epochs
        )
        alpha, validation_loss = schedule.alpha_start, math.nan
        retain_batches: Iterator[Any] = iter(())
        for epoch in range(schedule.epochs):
            if epoch % options.refresh_epochs == 0:
                validation_loss = _finite(mean_loss(model, holdout, context), "validation")
            if epoch % schedule.restart_every == 0:
                retain_batches = _endless(retain_loader)
            model.train(options.network_mode == "train")
            losses = []
            for step, forget_batch in enumerate(forget_loader, start=1):
                context.check()
                optimizer.zero_grad()
                losses.append(
                    _backward(
                        model, forget_batch, next(retain_batches), context, alpha, validation_loss
                    )
                )
                optimizer.step()
                done = (epoch + step / len(forget_loader)) / schedule.epochs
                context.progress(PHASE, done)
            forget_loss, retain_loss = (
                sum(column) / len(losses) for column in zip(*losses, strict=True)
            )
            yield Epoch(
                alpha,
                float(optimizer.param_groups[0]["lr"]),
                validation_loss,
                forget_loss,
                retain_loss,
            )
            alpha -= schedule.alpha_start / schedule.epochs
            scheduler.step()


def schedule_for(options: NablaTauOptions, forget: int, retain: int) -> Schedule:
    """Return the schedule for sets of these sizes; what the options leave open is filled in."""
    forget_batches = math.ceil(forget / options.batch_size)
    retain_batches = math.ceil(retain / options.batch_size)
    epochs = options.epochs or max(1, 3 * retain_batches // forget_batches)
    alpha = options.alpha_start
    if alpha is None:
        alpha = min(1.0, 5 / 3 * forget / (forget + retain))
    return Schedule(epochs, alpha, max(1, retain_batches // forget_batches))


def _backward(
    model: nn.Module,
    forget_batch: Any,
    retain_batch: Any,
    context: Context,
    alpha: float,
    validation_loss: float,
) -> tuple[float, float]:
    # In train mode, batch normalisation sees the forget batch first and the retain batch last.
    recipe, device = context.recipe, context.device
    L_f = recipe.losses(model, to_device(forget_batch, device)).mean()  # ()
    L_r = recipe.losses(model, to_device(retain_batch, device)).mean()  # ()
    loss = alpha * relu(validation_loss - L_f).square() + (1 - alpha) * L_r  # ()
    forget_loss = _finite(L_f.item(), "forget")
    retain_loss = _finite(L_r.item(), "retain")
    torch.autograd.backward(loss)
    return forget_loss, retain_loss


def _loader(
    dataset: MapDataset, batch_size: int, context: Context, generator: torch.Generator
) -> Loader:
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a MapDataset is all that DataLoader asks for
        batch_size=batch_size,
        shuffle=True,
        generator=generator,
        collate_fn=context.recipe.collate,
    )


def _endless(loader: Loader) -> Iterator[Any]:
    """Return the loader's batches, pass after pass."""

    def again() -> Iterator[Any]:
        while True:
            yield from loader

    # The first pass is drawn here and not at the first batch, as the authors' code does: the
    # generator is shared, so the order of draws decides the order of records.
    return chain(iter(loader), again())


def _finite(loss: float, which: str) -> float:
    if not math.isfinite(loss):
        raise NotFinite(f"the mean loss of the {which} set")
    return loss
