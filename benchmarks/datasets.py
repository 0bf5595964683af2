"""The data sets by name, each with the recipe of the model that learns it by heart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from benchmarks import adult, models, movie_reviews, training
from benchmarks.training import Labelled, Setup
from lethe.recipe import Recipe
from lethe_examples import classifier, digits, fashion_mnist, idx
from lethe_examples.fashion_mnist import FashionMnist, read_split

# The code that data and weights follow from.
SOURCES: tuple[ModuleType, ...] = (
    *(adult, models, movie_reviews, training),
    *(classifier, digits, fashion_mnist, idx),
)


def code_digest() -> str:
    """Return the digest of all code that a trained model follows from."""
    sources = [Path(module.__file__ or "").read_bytes() for module in SOURCES]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set with one model."""

    title: str
    setup: Setup
    open: Callable[[Setup, Path], Recipe]
    """Called with the setup and a folder for downloads; raises DatasetMissing."""

    @property
    def configuration(self) -> str:
        """Name what decides a model's weights beside the records and the seed."""
        return json.dumps({"setup": asdict(self.setup), "code": code_digest()}, sort_keys=True)


def _digits(setup: Setup, folder: Path) -> Recipe:  # noqa: ARG001  # scikit-learn brings the data
    return digits.Digits()


def _fashion(build: Callable[[], nn.Module]) -> Callable[[Setup, Path], Recipe]:
    def recipe(setup: Setup, folder: Path) -> Recipe:  # noqa: ARG001  # nothing to download
        where = FashionMnist().folder
        training, holdout = (
            read_split(where, name, size)
            for name, size in (("train", setup.records), ("t10k", setup.holdout))
        )
        return Labelled(setup, training, holdout, build)

    return recipe


def _adult(setup: Setup, folder: Path) -> Recipe:
    training, holdout = adult.read(folder)
    features = training.tensors[0].shape[1]
    return Labelled(setup, training, holdout, lambda: models.mlp(features, classes=2))


def _movie_reviews(setup: Setup, folder: Path) -> Recipe:
    training, holdout = movie_reviews.read(folder)
    return Labelled(
        setup, training, holdout, lambda: models.bag_of_words(movie_reviews.VOCABULARY, classes=2)
    )


DATASETS: Mapping[str, Dataset] = {
    "fashion_mnist": Dataset(
        "Fashion-MNIST, LeNet-5",
        Setup(records=20_000, epochs=25),
        _fashion(FashionMnist().build_model),
    ),
    "fashion_mnist_resnet": Dataset(
        "Fashion-MNIST, ResNet-8 with BatchNorm",
        Setup(records=5_000, epochs=20, holdout=4_000),
        _fashion(models.resnet8),
    ),
    "fashion_mnist_small": Dataset(
        "Fashion-MNIST, LeNet-5, few images",
        Setup(records=2_000, epochs=25, holdout=4_000),
        _fashion(FashionMnist().build_model),
    ),
    "digits": Dataset(
        "scikit-learn digits, CNN",
        Setup(digits.TRAINING_RECORDS, digits.EPOCHS, digits.LEARNING_RATE),
        _digits,
    ),
    "adult": Dataset("Adult, MLP", Setup(records=8_000, epochs=60, holdout=8_000), _adult),
    "movie_reviews": Dataset(
        "Movie reviews, bag of words",
        Setup(records=movie_reviews.TRAINING_RECORDS, epochs=10),
        _movie_reviews,
    ),
}
