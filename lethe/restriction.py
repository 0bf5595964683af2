"""Gradient restriction: train so that no record's gradient stands out; needs torch.

Letters: θ the trainable parameters, T the tensors that they come in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def restricted(model: nn.Module, loss: Tensor, alpha: float = 0.005) -> Tensor:
    r"""Return a loss to train with in place of this one, so that the model forgets well later.

    The gradient of what is to be forgotten is what an ``iau`` step undoes; where it is large, a
    single step is a poor approximation. So its size is part of the loss (gradient restriction of
    IAU, arXiv 2507.23257; as in ``train_model.py`` of github.com/Lolo1222/IAU):

    .. math::

        \ell_{GR} = \ell + \alpha \sum_{t \in T} \lVert \nabla_{\theta_t} \ell \rVert_2

    with one norm, not squared, for each tensor of parameters. ``loss`` is the scalar of a batch,
    its graph still there; the result is a scalar for ``backward()``, which passes through the
    gradient a second time and so takes two to three times as long. A gradient of zero adds
    nothing, and its norm's derivative is taken as zero.

    In a recipe's ``train``::

        loss = restricted(model, self.losses(model, batch).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(g) for g in gradient if g is not None]
    return loss + alpha * sum(norms, torch.zeros_like(loss))
