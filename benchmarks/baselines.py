"""What every paper compares with: training on what is kept, and climbing what is deleted."""

from __future__ import annotations

import torch
from torch import nn

from lethe._passes import batches
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned
from workers.unlearning.weights import finite_state

BATCH_SIZE = 64
FINE_TUNE_EPOCHS = 2
FINE_TUNE_RATE = 1e-3
ASCENT_STEPS = 10
# A tenth of what the models are trained with: the ten steps go about as far as IAU's one.
ASCENT_RATE = 1e-4


def fine_tune(
    model: nn.Module,
    forget: MapDataset,  # noqa: ARG001  # that it is not looked at is the idea
    retain: MapDataset,
    holdout: MapDataset,  # noqa: ARG001  # part of a method's contract
    context: Context,
) -> Unlearned:
    """Train on for two passes over the retain set, and hope that the rest fades."""
    optimiser = torch.optim.Adam(model.parameters(), lr=FINE_TUNE_RATE)
    generator = torch.Generator().manual_seed(context.seed)
    model.train()
    with context.seeded():
        for _ in range(FINE_TUNE_EPOCHS):
            for batch in batches(
                context.recipe, retain, context.device, generator=generator, batch_size=BATCH_SIZE
            ):
                optimiser.zero_grad()
                torch.autograd.backward(context.recipe.losses(model, batch).mean())
                optimiser.step()
    options = {"epochs": FINE_TUNE_EPOCHS, "learning_rate": FINE_TUNE_RATE}
    return Unlearned(finite_state(model), "approximate", options)


def gradient_ascent(
    model: nn.Module,
    forget: MapDataset,
    retain: MapDataset,  # noqa: ARG001  # that it is not looked at is the flaw
    holdout: MapDataset,  # noqa: ARG001  # part of a method's contract
    context: Context,
) -> Unlearned:
    """Take a few steps of Adam up the forget set's loss, in eval mode, so that statistics stay."""
    optimiser = torch.optim.Adam(model.parameters(), lr=ASCENT_RATE, maximize=True)
    generator = torch.Generator().manual_seed(context.seed)
    model.eval()
    steps = 0
    with context.seeded():
        while steps < ASCENT_STEPS:
            for batch in batches(
                context.recipe, forget, context.device, generator=generator, batch_size=BATCH_SIZE
            ):
                optimiser.zero_grad()
                torch.autograd.backward(context.recipe.losses(model, batch).mean())
                optimiser.step()
                steps += 1
                if steps == ASCENT_STEPS:
                    break
    options = {"steps": ASCENT_STEPS, "learning_rate": ASCENT_RATE}
    return Unlearned(finite_state(model), "approximate", options)
