"""What the two image classifiers share: losses, the metric and a deterministic training loop.

Shapes: N records, B batch, C classes; an image batch is (B, 1, H, W), labels are (B,) int64.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (as PyTorch itself writes it)
from torch.utils.data import DataLoader, default_collate

if TYPE_CHECKING:
    from lethe.recipe import MapDataset

log = logging.getLogger(__name__)

Batch = list[Tensor]
"""What PyTorch's default collate makes of (image, label) pairs: [images, labels]."""


def cross_entropies(model: nn.Module, batch: Batch) -> Tensor:
    """Return the cross entropy of each example in nats, shape (B,)."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, reduction="none")


def softmax_entropies(model: nn.Module, batch: Batch) -> Tensor:
    """Return the entropy of each softmax output in nats, shape (B,)."""
    log_p = F.log_softmax(model(batch[0]), dim=1)  # (B, C)
    return -(log_p.exp() * log_p).sum(dim=1)


def accuracy(model: nn.Module, dataset: MapDataset, batch_size: int) -> float:
    """Return the share of records classified rightly, in eval mode; the mode is put back."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right = 0
    try:
        with torch.no_grad():
            # A generator of its own, because a DataLoader draws from the global one otherwise.
            for images, labels in DataLoader(
                dataset,  # type: ignore[arg-type]  # a MapDataset is all that it asks for
                batch_size=batch_size,
                generator=torch.Generator(),
            ):
                right += int((model(images.to(device)).argmax(dim=1).cpu() == labels).sum())
    finally:
        model.train(was_training)
    return right / len(dataset)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every weight from the seed, by He's rule, and leave PyTorch's own generators alone.

    The rule (He et al. 2015, arXiv 1502.01852) draws wider than PyTorch's default; a network
    that starts wider learns more by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            drawn = torch.empty(module.weight.shape)  # on the CPU: the same on every device
            nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
            with torch.no_grad():
                module.weight.copy_(drawn)
                if module.bias is not None:
                    module.bias.zero_()


def fit(
    model: nn.Module,
    dataset: MapDataset,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Train from scratch with Adam, in place; the weights depend on data, seed and device alone.

    The model is drawn anew from the seed first, so whoever built it need not have seeded anything.
    Logs one line an epoch at level INFO.
    """
    device = next(model.parameters()).device
    # The data fits into memory as one batch; collating it once is faster than once an epoch.
    images, labels = default_collate([dataset[index] for index in range(len(dataset))])
    images, labels = images.to(device), labels.to(device)
    initialise(model, seed)
    # On the CPU, so that every device sees the records in the same order.
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    was_training = model.training
    model.train()
    try:
        for epoch in range(epochs):
            total = torch.zeros((), device=device)  # read once an epoch: reading waits for a GPU
            for index in torch.randperm(len(labels), generator=generator).split(batch_size):  # type: ignore[no-untyped-call]
                chosen = index.to(device)
                loss = F.cross_entropy(model(images[chosen]), labels[chosen])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += loss.detach() * len(index)
            log.info(
                "epoch %d of %d: mean loss %.5f", epoch + 1, epochs, total.item() / len(labels)
            )
    finally:
        model.train(was_training)
