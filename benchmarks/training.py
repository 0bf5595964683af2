"""One recipe for every data set of labelled tensors, and the loop that trains its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (as PyTorch itself writes it)
from torch.utils.data import TensorDataset, default_collate

from lethe.recipe import MapDataset, Recipe
from lethe_examples import classifier


@dataclass(frozen=True, slots=True)
class Setup:
    """How much a model sees and for how long: enough that it knows its records by heart."""

    records: int
    """Training records, taken from the front."""
    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 64
    holdout: int | None = None
    """Holdout records, taken from the front; None for all."""


class Labelled(Recipe):
    """A classifier of (tensor, label) pairs, judged by its accuracy."""

    batch_size = 500

    def __init__(
        self,
        setup: Setup,
        training: TensorDataset,
        holdout: TensorDataset,
        build: Callable[[], nn.Module],
    ) -> None:
        """Take the data whole; the setup says how much of it is used."""
        self._setup = setup
        self._training = TensorDataset(*(t[: setup.records] for t in training.tensors))
        self._holdout = TensorDataset(*(t[: setup.holdout] for t in holdout.tensors))
        self._build = build

    def build_model(self) -> nn.Module:
        """Return the untrained module, its convolutions laid out for the CPU's fast path."""
        return self._build().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def training_data(self) -> TensorDataset:
        """Return the training records."""
        return self._training

    def sample_ids(self) -> Sequence[str]:
        """Return a made-up name for each training record."""
        return [f"record-{index:05d}" for index in range(len(self._training))]

    def holdout_data(self) -> TensorDataset:
        """Return records of the same source that are never trained on."""
        return self._holdout

    def losses(self, model: nn.Module, batch: classifier.Batch) -> Tensor:
        """Return each example's cross entropy in nats, shape (B,)."""
        return classifier.cross_entropies(model, batch)

    def entropies(self, model: nn.Module, batch: classifier.Batch) -> Tensor:
        """Return each prediction's entropy in nats, shape (B,)."""
        return classifier.softmax_entropies(model, batch)

    def metric(self, model: nn.Module, dataset: MapDataset) -> float:
        """Return the accuracy, a share of one."""
        return classifier.accuracy(model, dataset, self.batch_size)

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:
        """Train from scratch with Adam."""
        fit(model, dataset, seed, self._setup)


def fit(model: nn.Module, dataset: MapDataset, seed: int, setup: Setup) -> None:
    """Draw the model anew and train it in place; the weights follow from data, seed and device."""
    device = next(model.parameters()).device
    # The data fits into memory as one batch; collating it once is faster than once an epoch.
    inputs, labels = default_collate([dataset[index] for index in range(len(dataset))])
    inputs, labels = inputs.to(device), labels.to(device)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    # Fused: one kernel for all parameters; for networks this small the step is a fifth of the time.
    optimiser = torch.optim.Adam(model.parameters(), lr=setup.learning_rate, fused=True)
    was_training = model.training
    model.train()
    try:
        for _ in range(setup.epochs):
            order = torch.randperm(len(labels), generator=generator)
            for chosen in order.split(setup.batch_size):  # type: ignore[no-untyped-call]
                loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    finally:
        model.train(was_training)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every weight from the seed and leave PyTorch's own generators alone."""
    classifier.initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.EmbeddingBag):
            drawn = torch.empty(module.weight.shape).normal_(std=0.1, generator=generator)
            with torch.no_grad():
                module.weight.copy_(drawn)
                if module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
