"""Retraining from scratch without the forgotten records: exact, and the dearest."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lethe.policy import MethodName
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned, require_records
from workers.unlearning.gradients import mean_loss
from workers.unlearning.weights import finite_state

PHASE = "unlearn retrain"


@dataclass(frozen=True, slots=True)
class Retrain:
    """Train a fresh model on the retained records alone, with the recipe's own ``train``.

    Nothing of the parent's weights enters, so neither does anything that they had learned: the
    guarantee is exact as far as the recipe's ``train`` looks at nothing but what it is given.
    A running ``train`` cannot be interrupted; cancellation takes effect before and after it.

    Raises:
        lethe.recipe.CannotTrain: the recipe has no ``train``.
        Cancelled: before or after training.
        EmptySet: there is nothing to retain.
        NotFinite: a trained weight is NaN or infinite.

    """

    name: ClassVar[MethodName] = "retrain"

    def unlearn(
        self,
        model: nn.Module,  # noqa: ARG002  # the parent; ignoring it is what makes this exact
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,  # noqa: ARG002  # part of the contract; this method looks at none
        context: Context,
    ) -> Unlearned:
        """Return the weights of the fresh model; see the class."""
        require_records(forget=forget, retain=retain)
        started = time.monotonic()
        context.check()
        context.progress(PHASE, 0.0)
        with context.seeded():
            fresh = context.recipe.build_model().to(context.device)
            context.recipe.train(fresh, retain, context.seed)
            context.check()
            state = finite_state(fresh)
            forget_loss = mean_loss(fresh, forget, context)
        context.progress(PHASE, 1.0)
        return Unlearned(
            state,
            "exact",
            {
                "method": self.name,
                "seed": context.seed,
                "records": {"forget": len(forget), "retain": len(retain)},
                "forget_loss": {"after": forget_loss if math.isfinite(forget_loss) else None},
                "seconds": time.monotonic() - started,
            },
        )
