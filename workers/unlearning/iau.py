"""IAU, Influence Approximation Unlearning (Liu, Wu, Lian, Chen; arXiv 2507.23257)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lethe.policy import IauOptions, MethodName
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned, require_records
from workers.unlearning.errors import NotFinite
from workers.unlearning.gradients import (
    MeanGradient,
    mean_gradient,
    mean_loss,
    norm,
    trainable,
)
from workers.unlearning.weights import distance, finite_state, state_on_cpu

PHASE = "unlearn iau"


@dataclass(frozen=True, slots=True)
class Iau:
    r"""Forget in one optimiser step, without a Hessian.

    Removing a record is approximated by learning an opposite one, whose gradient is the negative
    (incremental approximation); the gradient of what remains is added, so that it is not
    forgotten too (gradient correction). With D_f to forget and D_r to retain, as the authors'
    code has it:

    .. math::

        g = \frac{1}{|D_r|} \sum_{z \in D_r} \nabla_\theta \ell(z, \theta)
          - \frac{1}{|D_f|} \sum_{z \in D_f} \nabla_\theta \ell(z, \theta)

    and then one step of a fresh Adam along g: every parameter moves by
    −η·g / (|g| + 10⁻⁸), in effect by η against the sign of g.

    The authors' third part, gradient restriction, changes how the parent is trained and is up to
    the recipe. Their code runs in the mode of a freshly built module, train mode, on a network to
    which the mode makes no difference. Here it is eval mode: there dropout and batch statistics
    are still, so that a gradient summed over batches is that of the whole set at once.

    Source: ``IAU_unlearn.py`` of github.com/Lolo1222/IAU. The code numbers no equation.

    Raises:
        Cancelled: between batches.
        EmptySet: there is nothing to forget or nothing to retain.
        NotFinite: a mean loss, the gradient of one or a new weight is NaN or infinite.

    """

    options: IauOptions
    name: ClassVar[MethodName] = "iau"

    def unlearn(
        self,
        model: nn.Module,
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,  # noqa: ARG002  # part of the contract; this method looks at none
        context: Context,
    ) -> Unlearned:
        """Return the weights after the step; see the class."""
        require_records(forget=forget, retain=retain)
        started = time.monotonic()
        before = state_on_cpu(model)
        share = len(retain) / (len(retain) + len(forget))
        with context.seeded():
            kept = mean_gradient(
                model, retain, context, lambda done: context.progress(PHASE, share * done)
            )
            _require_finite(kept, "retain")
            gone = mean_gradient(
                model,
                forget,
                context,
                lambda done: context.progress(PHASE, share + (1 - share) * done),
            )
            _require_finite(gone, "forget")
            self._step(model, kept, gone)
            state = finite_state(model)
            forget_loss_after = mean_loss(model, forget, context)
        moved = distance(before, state, [name for name, _ in model.named_parameters()])
        evidence: dict[str, Any] = {
            "method": self.name,
            "learning_rate": self.options.learning_rate,
            "seed": context.seed,
            "records": {"forget": len(forget), "retain": len(retain)},
            "retain_loss": {"before": kept.loss},
            "forget_loss": {
                "before": gone.loss,
                "after": forget_loss_after if math.isfinite(forget_loss_after) else None,
            },
            "gradient_norm": {"retain": norm(kept.gradient), "forget": norm(gone.gradient)},
            "step_norm": moved.norm,
            "seconds": time.monotonic() - started,
        }
        return Unlearned(state, "approximate", evidence)

    def _step(self, model: nn.Module, kept: MeanGradient, gone: MeanGradient) -> None:
        parameters = trainable(model)
        for parameter, retain, forget in zip(parameters, kept.gradient, gone.gradient, strict=True):
            combined = _minus(retain, forget)
            parameter.grad = None if combined is None else combined.to(parameter.dtype)
        torch.optim.Adam(parameters, lr=self.options.learning_rate).step()


def _minus(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if right is None:
        return left
    return -right if left is None else left - right


def _require_finite(mean: MeanGradient, which: str) -> None:
    if not math.isfinite(mean.loss):
        raise NotFinite(f"the mean loss of the {which} set")
    if not math.isfinite(norm(mean.gradient)):
        raise NotFinite(f"the gradient of the {which} set's mean loss")
