"""The batches of ∇τ: shuffled by one generator, and each record's position carried along."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, default_collate

from lethe.recipe import MapDataset
from workers.unlearning.contract import Context

Loader = DataLoader[Any]


def loader(
    dataset: MapDataset, batch_size: int, context: Context, generator: torch.Generator
) -> Loader:
    """Return a loader that shuffles the dataset anew in each pass."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a MapDataset is all that DataLoader asks for
        batch_size=batch_size,
        shuffle=True,
        generator=generator,
        collate_fn=context.recipe.collate,
    )


def numbered_loader(
    dataset: MapDataset,
    batch_size: int,
    context: Context,
    generator: torch.Generator,
    left_out: Callable[[], Container[int]] = tuple,
) -> Loader:
    """Return a loader of pairs: a batch, and its records' positions in the dataset, (B,).

    It draws from the generator what ``loader`` draws. The positions that ``left_out`` returns when
    a batch comes up are missing from it, and nothing takes their place: where none is left, the
    pair is None and no positions.
    """
    collate = context.recipe.collate or default_collate

    def collate_numbered(items: list[tuple[Any, int]]) -> tuple[Any, Tensor]:
        records = [record for record, _ in items]
        positions = torch.tensor([position for _, position in items], dtype=torch.int64)
        return (collate(records) if records else None), positions

    # What DataLoader makes of shuffle=True.
    order = RandomSampler(dataset, generator=generator)
    return DataLoader(
        _Numbered(dataset),  # type: ignore[arg-type]
        batch_sampler=_Without(BatchSampler(order, batch_size, drop_last=False), left_out),
        generator=generator,
        collate_fn=collate_numbered,
    )


def endless(loader: Loader) -> Iterator[Any]:
    """Return the loader's batches, pass after pass."""

    def again() -> Iterator[Any]:
        while True:
            yield from loader

    # The first pass is drawn here and not at the first batch, as the authors' code does: the
    # generator is shared, so the order of draws decides the order of records.
    return chain(iter(loader), again())


@dataclass(frozen=True, slots=True)
class _Without:
    """Batches of positions without those that are left out."""

    batches: BatchSampler
    left_out: Callable[[], Container[int]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            left_out = self.left_out()
            yield [position for position in batch if position not in left_out]


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A dataset's items, each with its position."""

    dataset: MapDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], index

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        if not indices:
            return []
        # A dataset that can fetch many items at once is asked to, as DataLoader would.
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        return list(zip(items, indices, strict=True))
