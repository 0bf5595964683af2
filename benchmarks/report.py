"""The results for people: a Markdown page of tables, with a figure beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks import arms, figure
from benchmarks.datasets import DATASETS
from benchmarks.rows import Row
from benchmarks.summary import Line, lines

INTRODUCTION = """\
# How well it forgets

Written by `python -m benchmarks.forgetting --report docs/forgetting.md`; the same command with the
same rows writes the same page. Each method starts from the same over-fitted *original*, deletes the
same records and is held against a *retrain* without them. The page shows the rows that were
computed, which need not be the whole grid.

- **RA**, **UA**, **TA**: accuracy on retained, on deleted, and on never-seen data (the judging half
  of the holdout). **gap**: mean |difference from the retrain| of the three, ± its standard
  deviation over seeds. The **noise floor** is the gap between two retrains that differ in the seed
  alone, a mean over pairs of the retrain with each of the others: below it, no method can be told
  from retraining.
- **AUC**: membership-inference attacks, deleted against never-seen records; one half says nothing.
  The *calibrated* one takes each record's own difficulty away, as models that never saw it (the
  judges) know it. **TPR**: of the calibrated attack, at 1 % false positives.
- **time**: processor time over that of the retrain of the same cell. References, which give targets
  and judges, are trained once for a model; IAU's gradient ledger is summed up once for a version.
  Both stand apart from it.
- **verdict**: the service's own verification, at a policy's default bounds. *Ladder* is the default
  policy: its methods in turn until one passes, the time of all of them included.
- *Class* deletes one whole class. Then never-seen records of it stay in the holdout, so that TA
  falls for every method that really forgets.
"""

HEADINGS = (
    *("method", "RA", "UA", "TA", "gap", "AUC loss", "AUC entropy", "AUC calibrated"),
    *("TPR", "time", "verdict"),
)


def write(path: Path, rows: Sequence[Row]) -> bool:
    """Write the page, and the figure if the plotting library is installed; return whether it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = lines(rows)
    drawn = figure.draw(path.with_suffix(".svg"), shown)
    path.write_text(page(shown, path.with_suffix(".svg").name if drawn else None))
    return drawn


def page(shown: Sequence[Line], picture: str | None) -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    if picture is not None:
        parts.append(f"![Gap and time by the share deleted]({picture})\n")
    for dataset, of_dataset in groupby(shown, key=lambda line: line.dataset):
        parts += section(dataset, list(of_dataset))
    return "\n".join(parts)


def section(dataset: str, shown: Sequence[Line]) -> Iterator[str]:
    """Yield what the page says of one data set."""
    described = DATASETS[dataset]
    references = max(row.references_seconds for line in shown for row in line.rows)
    ledger = max(row.ledger_seconds for line in shown for row in line.rows)
    yield f"## {described.title}\n"
    yield (
        f"{described.setup.records:,} training records, {described.setup.epochs} epochs; "
        f"the references took {references:.0f} s, a gradient ledger {ledger:.1f} s.\n"
    )
    for (deletion, share), table in groupby(shown, key=lambda line: (line.deletion, line.share)):
        of_deletion = list(table)
        yield f"### {_title(deletion, share, of_deletion)}\n"
        yield _row(HEADINGS)
        yield _row("---" if name in ("method", "verdict") else "---:" for name in HEADINGS)
        yield from (_row(cells(line)) for line in of_deletion)
        yield ""


def cells(line: Line) -> list[str]:
    """Return one line of a table."""
    spread = line.spread(lambda row: row.gap)
    outcome = (
        f"{line.rungs()} ({line.verdicts()})" if line.method == arms.LADDER else line.verdicts()
    )
    return [
        line.method,
        *(_number(line.mean(of)) for of in (lambda r: r.ra, lambda r: r.ua, lambda r: r.ta)),
        _number(line.mean(lambda row: row.gap)) + ("" if spread is None else f" ± {spread:.3f}"),
        _number(line.mean(lambda row: row.auc_loss)),
        _number(line.mean(lambda row: row.auc_entropy)),
        _number(line.mean(lambda row: row.auc_calibrated)),
        _number(line.mean(lambda row: row.tpr_1)),
        _number(line.mean(lambda row: row.time_ratio)),
        outcome,
    ]


def line(row: Row) -> str:
    """Return one row for whoever watches."""
    numbers = (row.ra, row.ua, row.ta, row.gap, row.auc_calibrated, row.time_ratio)
    shown = "  ".join(f"{_number(number):>5}" for number in numbers)
    return f"  {row.method:27}{shown}  {row.error or row.rung or row.verdict}"


def _title(deletion: str, share: float, of_deletion: Sequence[Line]) -> str:
    rows = [row for line in of_deletion for row in line.rows]
    sizes = sorted({row.forgotten for row in rows})
    records = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in rows}))
    what = "One whole class" if deletion == "class" else f"{100 * share:g} % at random"
    return f"{what}: {records} records; seeds {seeds}; noise floor {_floor(rows)}"


def _floor(rows: Sequence[Row]) -> str:
    pairs = [row for row in rows if arms.number_of_other_seed(row.method) and row.gap is not None]
    gaps = [row.gap for row in pairs if row.gap is not None]
    first = [row.gap for row in pairs if row.method == arms.OTHER_SEED and row.gap is not None]
    told = _number(rows[0].noise_floor)
    if len(gaps) > len(first) > 0:
        spread, mean = statistics.stdev(gaps), statistics.fmean(first)
        told += f" ± {spread:.3f} of {len(gaps)} pairs ({mean:.3f} of each seed's first)"
    return told


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
