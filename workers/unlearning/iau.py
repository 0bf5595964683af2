"""IAU, Influence Approximation Unlearning (Liu, Wu, Lian, Chen; arXiv 2507.23257)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from lethe.policy import IauOptions, MethodName
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned, require_records
from workers.unlearning.gradients import mean_loss, norm, trainable
from workers.unlearning.iau_calibration import Calibration, calibrate
from workers.unlearning.iau_gradients import Gradients, gradients
from workers.unlearning.weights import distance, finite_state, state_on_cpu

PHASE = "unlearn iau"

_OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True, slots=True)
class Iau:
    r"""Forget in one step, without a Hessian.

    Removing a record is approximated by learning an opposite one, whose gradient is the negative
    (incremental approximation); the gradient of what remains is added, so that it is not
    forgotten too (gradient correction). With D_f to forget, m records, D_r to retain, and D of
    N records both together, as the authors' code has it:

    .. math::

        g = \frac{1}{|D_r|} \sum_{z \in D_r} \nabla_\theta \ell(z, \theta)
          - \frac{1}{|D_f|} \sum_{z \in D_f} \nabla_\theta \ell(z, \theta)

    The step along it is up to the rule:

    - ``adam``, the authors': one step of a fresh Adam. Every parameter moves by
      −η·g / (|g| + 10⁻⁸), in effect by η against the sign of g.
    - ``sgd``: θ' = θ − η·g.
    - ``calibrated``: θ' = θ − t·g/‖g‖₂, with the length t found by forward passes over the forget
      set, ``iau_calibration.MOST_FORGET_PASSES`` at most: at t the mean forget loss meets the mean
      of the context's targets where these are known, else that of the validation data. Where the
      metric of the validation data would lose more than ``utility_budget``, t is the longest
      length found at which it does not. If the forget loss meets its target already, t is 0.

    The gradient of what remains needs no pass over it where the context brings a ledger, the sum
    over D at these weights:

    .. math::

        \sum_{z \in D_r} \nabla_\theta \ell(z, \theta)
          = \sum_{z \in D} \nabla_\theta \ell(z, \theta)
          - \sum_{z \in D_f} \nabla_\theta \ell(z, \theta)

    It is the same step to rounding, and the work is that of the m records alone.

    The authors' third part, gradient restriction, changes how the parent is trained and is up to
    the recipe; ``lethe.restriction`` has it. Their code runs in the mode of a freshly built
    module, train mode, on a network to which the mode makes no difference. Here it is eval mode
    throughout, whatever mode the model comes in: dropout is off, batch normalisation uses its
    running statistics and leaves them as they are, so that no record's gradient depends on its
    neighbours, and a gradient summed over batches is that of the whole set at once. Parameters
    alone move; buffers stay the parent's.

    Source: ``IAU_unlearn.py`` of github.com/Lolo1222/IAU. The code numbers no equation.

    Raises:
        Cancelled: between batches.
        EmptySet: there is nothing to forget or nothing to retain; or, to calibrate, no validation
            data.
        NotFinite: a mean loss, the gradient of one or a new weight is NaN or infinite; or, to
            calibrate, the target or the parent's metric.
        StaleLedger: the context's ledger cannot be one of this model and data.
        ValueError: to calibrate, the context's targets do not go with the forget set.

    """

    options: IauOptions
    name: ClassVar[MethodName] = "iau"

    def unlearn(
        self,
        model: nn.Module,
        forget: MapDataset,
        retain: MapDataset,
        holdout: MapDataset,
        context: Context,
    ) -> Unlearned:
        """Return the weights after the step; ``holdout`` is looked at only to calibrate it."""
        require_records(forget=forget, retain=retain)
        if self.options.rule == "calibrated":
            require_records(holdout=holdout)
        started = time.monotonic()
        before = state_on_cpu(model)
        reach = 0.5 if self.options.rule == "calibrated" else 1.0
        with context.seeded():
            mean = gradients(
                model, forget, retain, context, lambda done: context.progress(PHASE, reach * done)
            )
            if self.options.rule == "calibrated":
                found = self._calibrate(model, mean, forget, holdout, context)
                passes, calibration = 1 + found.forget_passes, found.to_json()
                state, forget_loss_after = finite_state(model), found.forget_loss
            else:
                self._step(model, mean)
                state = finite_state(model)
                forget_loss_after = mean_loss(model, forget, context)
                passes, calibration = 2, None
        moved = distance(before, state, [name for name, _ in model.named_parameters()])
        evidence: dict[str, Any] = {
            "method": self.name,
            "rule": self.options.rule,
            "learning_rate": None if calibration else self.options.learning_rate,
            "seed": context.seed,
            "records": {"forget": len(forget), "retain": len(retain)},
            "gradient": mean.source,
            "retain_loss": {"before": mean.kept.loss},
            "forget_loss": {
                "before": mean.gone.loss,
                "after": forget_loss_after if math.isfinite(forget_loss_after) else None,
            },
            "gradient_norm": {
                "retain": norm(mean.kept.gradient),
                "forget": norm(mean.gone.gradient),
            },
            "calibration": calibration,
            "forget_passes": passes,
            "step_norm": moved.norm,
            "seconds": time.monotonic() - started,
        }
        return Unlearned(state, "approximate", evidence)

    def _step(self, model: nn.Module, mean: Gradients) -> None:
        parameters = trainable(model)
        for parameter, g in zip(parameters, mean.combined(), strict=True):
            parameter.grad = None if g is None else g.to(parameter.device, parameter.dtype)
        _OPTIMIZERS[self.options.rule](parameters, lr=self.options.learning_rate).step()

    def _calibrate(
        self,
        model: nn.Module,
        mean: Gradients,
        forget: MapDataset,
        validation: MapDataset,
        context: Context,
    ) -> Calibration:
        return calibrate(
            model,
            mean.combined(),
            forget,
            validation,
            mean.gone.loss,
            self.options.utility_budget,
            context,
            lambda done: context.progress(PHASE, 0.5 + 0.5 * done),
        )
