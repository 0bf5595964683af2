"""Passes over a recipe's data; imported only where torch is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lethe.recipe import MapDataset, Recipe


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it, however nested, on the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def batches(
    recipe: Recipe,
    dataset: MapDataset,
    device: torch.device,
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Iterator[Any]:
    """Yield the dataset once in batches on the device: in order, or shuffled by a generator."""
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # a MapDataset is all that DataLoader asks for
        batch_size=batch_size or recipe.batch_size,
        shuffle=generator is not None,
        generator=generator,
        collate_fn=recipe.collate,
    )
    for batch in loader:
        yield to_device(batch, device)


def per_example_losses(recipe: Recipe, model: nn.Module, dataset: MapDataset) -> Tensor:
    """Return each record's loss in dataset order, shape (N,), float64 on the CPU, in eval mode.

    The model's own train or eval mode is put back afterwards.
    """
    device = device_of(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                recipe.losses(model, batch).detach().to("cpu", torch.float64)
                for batch in batches(recipe, dataset, device)
            ]
    finally:
        model.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def mean_loss(recipe: Recipe, model: nn.Module, dataset: MapDataset) -> float:
    """Return the mean of the per-example losses over the dataset, in eval mode."""
    return float(per_example_losses(recipe, model, dataset).mean())
