"""Trained models and reference losses on disk, since training them is most of the time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Took, timed
from workers.artifacts import load_state, write_state


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors and the time it took to make them, when they were made."""

    tensors: dict[str, Tensor]
    took: Took


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of tensors, each named by the digest of all that they follow from."""

    folder: Path

    def get(self, make: Callable[[], Mapping[str, Tensor]], **follows_from: Any) -> Kept:
        """Return what was made before from the same values, or make it now and keep it.

        The values are JSON; PyTorch's version and number of threads always count, since both
        change the bits.

        Raises:
            Corrupted: the file holds other bytes than were written; delete it.

        """
        follows_from |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        whole = json.dumps(follows_from, sort_keys=True).encode()
        name = hashlib.sha256(whole).hexdigest()[:24]
        note, file = (self.folder / f"{name}{end}" for end in (".json", ".safetensors"))
        if note.exists() and file.exists():
            known = json.loads(note.read_text())
            return Kept(load_state(file, known["digest"]), Took(**known["took"]))
        made, took = timed(make)
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = write_state(made, file)
        # Last, so that what was not written whole is not found.
        note.write_text(json.dumps({"digest": digest, "took": asdict(took)}))
        return Kept(dict(made), took)


def digest_of_indices(indices: list[int]) -> str:
    """Return a short name for a choice of records."""
    return hashlib.sha256(json.dumps(indices).encode()).hexdigest()[:24]
