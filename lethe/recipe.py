"""The one class an ML engineer writes for a model that must be able to forget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

ENTRY_POINT_GROUP = "lethe.recipes"


class MapDataset(Protocol):
    """A map-style dataset: what ``torch.utils.data.DataLoader`` takes, with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class CannotTrain(NotImplementedError):
    """The recipe has no ``train``, so what needs a fresh training run cannot be done with it."""


class Recipe(ABC):
    """How a model was built and trained, and on which data.

    Install the class in a package of your own and name it under the entry point group
    ``lethe.recipes``; the service finds it by that name. Everything here runs in the worker, on
    your own data: sample IDs leave it only as keyed digests.

    A *batch* is whatever ``collate`` makes of a list of dataset items, with its tensors moved to
    the model's device. Letters: B batch.
    """

    batch_size: int = 256
    """Examples in a batch, wherever the service passes over data."""

    collate: Callable[[list[Any]], Any] | None = None
    """How items become a batch; None for PyTorch's default. Declare it as a ``staticmethod``."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return the untrained module on the CPU, the same architecture each time."""

    @abstractmethod
    def training_data(self) -> MapDataset:
        """Return the training records, without augmentation; index i is always the same record."""

    @abstractmethod
    def sample_ids(self) -> Sequence[str]:
        """Return the sample ID of each training record, unique, in the order of its index."""

    @abstractmethod
    def holdout_data(self) -> MapDataset:
        """Return records of the same distribution that the model was never trained on."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the training loss of each example without reduction, shape (B,)."""

    def entropies(self, model: nn.Module, batch: Any) -> Tensor | None:  # noqa: ARG002
        """Return the entropy of each predicted distribution in nats, shape (B,).

        None, the default, says that the model predicts no distribution; the entropy attack is
        then left out of verification, and the verdict says so.
        """
        return None

    def metric(self, model: nn.Module, dataset: MapDataset) -> float:
        """Return how useful the model is on the dataset; higher is better.

        The default is the negative mean loss. A policy's utility budget is in this metric's unit.
        """
        from lethe._passes import mean_loss

        return -mean_loss(self, model, dataset)

    def train(self, model: nn.Module, dataset: MapDataset, seed: int) -> None:  # noqa: ARG002
        """Train a fresh model in place, on the device it is on, deterministically for the seed.

        Optional; it makes the exact method ``retrain`` possible.

        Raises:
            CannotTrain: the recipe does not override this method.

        """
        raise CannotTrain(
            f"{type(self).__name__} has no train(model, dataset, seed); write one, or take "
            "'retrain' out of the model's ladder"
        )

    @property
    def can_train(self) -> bool:
        """Whether the recipe brings a ``train`` of its own."""
        return type(self).train is not Recipe.train
