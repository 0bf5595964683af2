"""The rows of several seeds as one, in the order in which they are shown."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import arms
from benchmarks.datasets import DATASETS
from benchmarks.rows import Row


@dataclass(frozen=True, slots=True)
class Line:
    """One method on one deletion, over its seeds."""

    dataset: str
    deletion: str
    share: float
    """Of the training data, 0 to 1; 0 for a class, since those of two seeds may differ in size."""
    method: str
    rows: tuple[Row, ...]

    def mean(self, of: Callable[[Row], float | None]) -> float | None:
        """Return the mean over the seeds in which there is such a number."""
        numbers = self._numbers(of)
        return statistics.fmean(numbers) if numbers else None

    def spread(self, of: Callable[[Row], float | None]) -> float | None:
        """Return the sample standard deviation over the seeds; None for fewer than two."""
        numbers = self._numbers(of)
        return statistics.stdev(numbers) if len(numbers) > 1 else None

    def verdicts(self) -> str:
        """Return how often each outcome was reached."""
        return counted(row.error or row.verdict for row in self.rows)

    def rungs(self) -> str:
        """Return how often each rung of a ladder was the one that passed."""
        return counted(row.rung or "none" for row in self.rows)

    def _numbers(self, of: Callable[[Row], float | None]) -> list[float]:
        return [number for number in map(of, self.rows) if number is not None]


def lines(rows: Sequence[Row]) -> list[Line]:
    """Return a line for each dataset, deletion and method, in the order of the tables."""
    together: dict[tuple[int, int, float, int], list[Row]] = {}
    datasets, kinds = list(DATASETS), ("random", "class")
    for row in rows:
        share = row.share if row.deletion == "random" else 0.0
        place = (datasets.index(row.dataset), kinds.index(row.deletion), share)
        # Retrains with other seeds are all alike: one line shows every one of them.
        shown = arms.OTHER_SEED if arms.number_of_other_seed(row.method) else row.method
        together.setdefault((*place, arms.METHODS.index(shown)), []).append(row)
    return [
        Line(
            dataset=found[0].dataset,
            deletion=found[0].deletion,
            share=share,
            method=arms.METHODS[method],
            rows=tuple(sorted(found, key=lambda row: (row.seed, row.method))),
        )
        for (_, _, share, method), found in sorted(together.items(), key=lambda item: item[0])
    ]


def counted(words: Iterable[str]) -> str:
    """Return the words with how often each was met, the most frequent first."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
