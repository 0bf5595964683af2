"""The results: one JSON object a line, found again by what was asked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import arms


class Cell(NamedTuple):
    """One deletion from one model."""

    dataset: str
    deletion: str
    """``random``, or ``class`` for one whole class."""
    share: float
    """Of the training data, 0 to 1; of a class, what the class happens to hold."""
    seed: int

    @property
    def deletion_key(self) -> tuple[str, str, float | None]:
        """Name what the seeds have in common; the classes of two seeds may differ in size."""
        return self.dataset, self.deletion, None if self.deletion == "class" else self.share


class Key(NamedTuple):
    """What names a row."""

    cell: Cell
    method: str


@dataclass(frozen=True, slots=True)
class Row:
    """One method in one cell; None for what does not exist or is not finite."""

    dataset: str
    deletion: str
    share: float
    seed: int
    method: str
    forgotten: int = 0
    """Deleted records."""
    ra: float | None = None
    """Accuracy on the retained records."""
    ua: float | None = None
    """Accuracy on the deleted records."""
    ta: float | None = None
    """Accuracy on the judging half of the holdout."""
    gap: float | None = None
    """Mean of |difference from the retrain| of the three."""
    noise_floor: float | None = None
    """The gap between retrains that differ in the seed alone; mean over this deletion's pairs."""
    auc_loss: float | None = None
    auc_entropy: float | None = None
    auc_calibrated: float | None = None
    tpr_1: float | None = None
    """True-positive rate at 1 % false positives, of the calibrated attack, or else by loss."""
    seconds: float = 0.0
    """By the clock on the wall; of the method alone, as of a job's rung."""
    cpu_seconds: float = 0.0
    time_ratio: float | None = None
    """Processor time over that of the retrain of the same cell."""
    references_seconds: float = 0.0
    """To train the references, once for a model: in no other time here."""
    ledger_seconds: float = 0.0
    """To sum up the original's gradients, once for a version: in no other time here."""
    verdict: str = "failed"
    failed_checks: list[str] = field(default_factory=list)
    """Of the verdict, inconclusive ones included."""
    rung: str | None = None
    """Of a ladder: the first method that passed."""
    rung_seconds: float | None = None
    """Of a ladder: of that method; ``seconds`` is that of all rungs climbed."""
    options: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    """What kept the method from an outcome."""

    @property
    def cell(self) -> Cell:
        """Which deletion this is of."""
        return Cell(self.dataset, self.deletion, self.share, self.seed)

    @property
    def key(self) -> Key:
        """What names this row."""
        return Key(self.cell, self.method)


def load(path: Path) -> dict[Key, Row]:
    """Return the rows of a file; a last line that was cut off in the writing is left out."""
    if not path.exists():
        return {}
    whole, _, _ = path.read_text().rpartition("\n")
    rows = [Row(**json.loads(line)) for line in whole.splitlines()]
    return {row.key: row for row in rows}


def append(path: Path, row: Row) -> None:
    """Add a row to the file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace the file by one with these rows."""
    incoming = path.with_name(f".{path.name}.new")
    incoming.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    incoming.replace(path)


def gap(row: Row, retrain: Row) -> float | None:
    """Return the mean of the three distances from the retrain; None where one is unknown."""
    pairs = [(row.ra, retrain.ra), (row.ua, retrain.ua), (row.ta, retrain.ta)]
    differences = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return sum(differences) / 3 if len(differences) == 3 else None


def with_noise_floors(rows: Mapping[Key, Row]) -> dict[Key, Row]:
    """Return the rows, each with the mean gap of its deletion's other-seed retrains."""
    gaps: dict[tuple[str, str, float | None], list[float]] = defaultdict(list)
    for row in rows.values():
        if arms.number_of_other_seed(row.method) is not None and row.gap is not None:
            gaps[row.cell.deletion_key].append(row.gap)
    floors = {deletion: sum(found) / len(found) for deletion, found in gaps.items()}
    return {
        key: replace(row, noise_floor=floors.get(row.cell.deletion_key))
        for key, row in rows.items()
    }
