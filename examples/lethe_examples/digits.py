"""Handwritten digits: real scans, a model that trains in seconds, nothing to download.

A CNN that sees 1,200 of the scans in full grey generalises so well that an attack on its losses
tells training records from unseen ones no better than a coin (AUC 0.49): there would be nothing to
forget. So this recipe trains on 600, keeps one bit a pixel, as a fax would, and starts with wide
weights. No label is touched. Means over 8 seeds, 60 records deleted, 3 s a training on one thread:

=========  =================  ===============  ================  ====================
model      retained accuracy  forget accuracy  holdout accuracy  loss attack's AUC
=========  =================  ===============  ================  ====================
original   1.000              1.000            0.936             0.592 on the deleted
retrained  1.000              0.956            0.931             0.516 on the deleted
=========  =================  ===============  ================  ====================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lethe.recipe import MapDataset, Recipe
from lethe_examples import classifier

TRAINING_RECORDS = 600
SPLIT_SEED = 20  # any number does; changing it makes another data set of it
SCANS_PER_WRITER = 42
BLACK = 8  # of 16 grey levels; what is darker counts as ink
EPOCHS = 40
LEARNING_RATE = 3e-3


@lru_cache(maxsize=1)
def scans() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's 1,797 digits: images (N, 1, 8, 8) of zeros and ones, labels (N,)."""
    bunch = load_digits()
    ink = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1)  # 0 to 16
    return (ink > BLACK).float(), torch.tensor(bunch.target, dtype=torch.int64)


def split() -> tuple[Tensor, Tensor]:
    """Return the scan numbers of the training and the holdout records: a fixed permutation."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(scans()[1]), generator=generator)
    return order[:TRAINING_RECORDS], order[TRAINING_RECORDS:]


def records(chosen: Tensor) -> TensorDataset:
    """Return the chosen scans as a dataset of (image (1, 8, 8), label ()) pairs."""
    images, labels = scans()
    return TensorDataset(images[chosen], labels[chosen])


def sample_id(scan: int) -> str:
    """Return the sample ID of a scan, such as ``writer-017/scan-00342``."""
    return f"writer-{scan // SCANS_PER_WRITER + 1:03d}/scan-{scan:05d}"


class Digits(Recipe):
    """A small CNN on scikit-learn's handwritten digits, overfitted as real models are.

    The images and labels are real. The *writers* in the sample IDs are made up: the data set does
    not say who wrote which digit, so each 42 scans in a row are called one writer's.
    """

    batch_size = 256

    def build_model(self) -> nn.Module:
        """Return two convolutions and three linear layers: (B, 1, 8, 8) to logits (B, 10)."""
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def training_data(self) -> TensorDataset:
        """Return the first records of the permutation."""
        return records(split()[0])

    def sample_ids(self) -> Sequence[str]:
        """Return the sample ID of each training record."""
        return [sample_id(scan) for scan in split()[0].tolist()]

    def holdout_data(self) -> TensorDataset:
        """Return the rest of the permutation."""
        return records(split()[1])

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
        """Train with Adam long after the training accuracy has reached 100 %."""
        classifier.fit(
            model, dataset, seed=seed, epochs=EPOCHS, batch_size=64, learning_rate=LEARNING_RATE
        )
