"""The hyperparameters of ∇τ in effect: what a policy leaves open is filled in here alone.

Letters: |D_f|, |D_r| records to forget and to retain; F, R their batches; b_f, b_r records in one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lethe.policy import NablaTauOptions

PASSES = 15
"""Epochs after which a record has reached a target of its own.

Their number decides, and not that of the steps: far more of them carry records far beyond, since
nothing pulls them back, and far fewer leave them where they were (measured in docs/forgetting.md).
"""
RETAINED_SHARE = 1.2
"""Passes over the retained data that the steps towards such targets make, at most."""
LEAST_STEPS = 30
"""On small data a share of one pass would be over before anything has moved."""
LEAST_RETAINED = 40
"""Batches of retained records by which the weight of the others is at least divided."""
RATE, WEIGHT = 1.5e-3, 20.0
"""Learning rate, and the weight of the term at as many records to forget as to retain, squared."""
RESTED_RATE, RESTED_WEIGHT = 1.75e-3, 24.0
"""The same where records rest: whoever comes up more seldom is to rise further each time."""
LARGEST_BATCH = 512


@dataclass(frozen=True, slots=True)
class Schedule:
    """The hyperparameters in effect, those included that follow from the sizes of the sets."""

    epochs: int
    """E, passes over the forget set."""
    forget_batch: int
    """b_f."""
    retain_batch: int
    """b_r."""
    learning_rate: float
    rate_end: float
    """Share of the learning rate that is left at the end, to which it falls linearly."""
    anneal_each_step: bool
    """Whether it falls after each step, or after each epoch."""
    alpha_start: float
    """α₀."""
    alpha_decay: float
    """What α sinks by after each epoch."""
    restart_every: int
    """Epochs after which the pass over the retain set begins anew."""
    rests: bool
    """Whether records that lack little rest."""
    fused: bool
    """Whether one kernel takes the optimiser's step, where there is one: the same to rounding."""

    def within(self, largest_batch: int | None) -> Schedule:
        """Return the schedule with batches of at most so many records, and as many more steps."""
        if largest_batch is None:
            return self
        return replace(
            self,
            forget_batch=min(self.forget_batch, largest_batch),
            retain_batch=min(self.retain_batch, largest_batch),
        )


def schedule_for(
    options: NablaTauOptions, forget: int, retain: int, *, per_sample: bool = False
) -> Schedule:
    """Return the schedule for sets of these sizes."""
    return (_per_sample if per_sample else _as_published)(options, forget, retain)


def _as_published(options: NablaTauOptions, forget: int, retain: int) -> Schedule:
    size = options.batch_size or 256
    forget_batches, retain_batches = math.ceil(forget / size), math.ceil(retain / size)
    epochs = options.epochs or max(1, 3 * retain_batches // forget_batches)
    alpha = options.alpha_start
    if alpha is None:
        alpha = min(1.0, 5 / 3 * forget / (forget + retain))
    return Schedule(
        epochs=epochs,
        forget_batch=size,
        retain_batch=size,
        learning_rate=options.learning_rate or 1e-3,
        rate_end=0.1,
        anneal_each_step=False,
        alpha_start=alpha,
        alpha_decay=alpha / epochs,
        restart_every=max(1, retain_batches // forget_batches),
        rests=False,
        fused=False,
    )


def _per_sample(options: NablaTauOptions, forget: int, retain: int) -> Schedule:
    retain_batch = options.batch_size or 64
    retain_batches = math.ceil(retain / retain_batch)
    steps = max(LEAST_STEPS, RETAINED_SHARE * retain_batches)
    forget_batch = options.batch_size
    if forget_batch is None:
        wanted = math.ceil(PASSES * forget / steps)
        forget_batch = min(max(wanted, retain_batch), LARGEST_BATCH)
    forget_batch = min(forget_batch, forget)
    epochs = options.epochs
    if epochs is None:
        epochs = max(1, min(PASSES, math.ceil(steps / math.ceil(forget / forget_batch))))
    # Rest is for time's sake: beside as many retained records the visits cost little. In train mode
    # a record's loss depends on those beside it, also where its own term is zero.
    rests = PASSES * forget > steps * retain_batch and options.network_mode == "eval"
    rate, squared = (RESTED_RATE, RESTED_WEIGHT) if rests else (RATE, WEIGHT)
    alpha = options.alpha_start
    if alpha is None:
        # The mean over a batch weighs each record the less the larger it is; the root of the share
        # makes up for that, and keeps few records from being pulled much harder than many.
        weight = math.sqrt(squared * forget / (retain_batch * max(LEAST_RETAINED, retain_batches)))
        alpha = weight / (1 + weight)
    return Schedule(
        epochs=epochs,
        forget_batch=forget_batch,
        retain_batch=retain_batch,
        learning_rate=options.learning_rate or rate,
        # Steps of a constant length leave weights shaken, which costs retained records first.
        rate_end=0.0,
        anneal_each_step=True,
        alpha_start=alpha,
        # Each record's term fades by itself as the record reaches its target.
        alpha_decay=0.0,
        restart_every=epochs,
        rests=rests,
        fused=True,
    )
