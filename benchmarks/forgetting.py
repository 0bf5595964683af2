"""How well each method forgets, and at what price, held against retraining.

``python -m benchmarks.forgetting --quick`` takes minutes; without it, the whole grid takes hours.
Results already in ``--out`` are not computed again, and models already in ``--cache`` are not
trained again, so a run that was stopped goes on where it was. The last line on stdout is one JSON
object; the exit status is 1 if a data set was missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import arms, report, rows
from benchmarks.cache import Cache
from benchmarks.datasets import DATASETS
from benchmarks.expectations import expectations
from benchmarks.ground import prepare
from benchmarks.rows import Cell, Key, Row
from benchmarks.timing import warm_up
from benchmarks.workshop import Workshop, deleted
from lethe.policy import Policy
from lethe_examples.fashion_mnist import DatasetMissing
from workers.unlearning.contract import Context

FOLDER = Path("build/forgetting")
QUICK = {
    "datasets": ["digits", "fashion_mnist_small"],
    "shares": [5.0, 10.0],
    "deletions": ["random"],
    "seeds": [0, 1],
    "retrains": 1,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow the command line; returns the exit status."""
    asked = options(arguments)
    torch.set_num_threads(asked.threads)
    warm_up()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    known = rows.load(asked.out)
    rows.write(asked.out, known.values())
    started, missing, computed = time.monotonic(), [], 0
    for name in asked.datasets:
        try:
            workshop = open_workshop(name, asked)
        except DatasetMissing as error:
            say(f"{name} is skipped: {error}")
            missing.append(name)
            continue
        for row in rows_of(workshop, asked, known):
            known[row.key] = row
            rows.append(asked.out, row)
            computed += 1
            say(report.line(row))
    known = rows.with_noise_floors(known)
    rows.write(asked.out, known.values())
    if asked.report and not report.write(asked.report, list(known.values())):
        say("the page has no figure; install matplotlib for one")
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"rows": computed, "missing": missing, "seconds": seconds}))
    return 1 if missing else 0


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ``--quick`` changes what is not named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forgetting", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small data sets and few deletions")
    add("--datasets", nargs="+", choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    add("--shares", nargs="+", type=float, metavar="PERCENT", help="deleted, in percent")
    add("--deletions", nargs="+", choices=("random", "class"))
    add("--seeds", nargs="+", type=int, metavar="SEED")
    add("--methods", nargs="+", choices=arms.METHODS, metavar="NAME", help=", ".join(arms.METHODS))
    add("--retrains", type=int, metavar="N", help="with other seeds, to hold the retrain against")
    add("--references", type=int, default=Policy().references.count, help="0 for none")
    add("--out", type=Path, default=FOLDER / "results.jsonl", help="one JSON object a row")
    add("--cache", type=Path, default=FOLDER / "models", help="folder of trained models")
    add("--data", type=Path, default=FOLDER / "data", help="folder of downloads")
    add("--report", type=Path, help="the Markdown page to write, with a figure beside it")
    add("--threads", type=int, default=1, help="PyTorch's threads; times are compared at one")
    asked = parser.parse_args(arguments)
    whole = {
        "datasets": [name for name in DATASETS if name != "fashion_mnist_small"],
        "shares": [0.1, 1.0, 5.0, 10.0, 30.0],
        "deletions": ["random", "class"],
        "seeds": [0, 1, 2],
        "methods": list(arms.METHODS),
        "retrains": 3,
    }
    for name, default in (whole | (QUICK if asked.quick else {})).items():
        if getattr(asked, name) is None:
            setattr(asked, name, default)
    if not all(0 < share < 100 for share in asked.shares):
        parser.error("a share lies between 0 and 100 percent")
    if asked.retrains < 1:
        parser.error("the noise floor takes at least one more retrain")
    if asked.references < 0 or asked.references % 4:
        parser.error("the number of references is a multiple of 4")
    return asked


def open_workshop(name: str, asked: argparse.Namespace) -> Workshop:
    """Return the data set with its references, trained now if they never were."""
    dataset = DATASETS[name]
    recipe = dataset.open(dataset.setup, asked.data)
    context = Context(recipe, 0, torch.device("cpu"), lambda *_: None, lambda: False)
    training = recipe.training_data()
    labels = torch.tensor([int(training[index][1]) for index in range(len(training))])
    configuration = dataset.configuration
    cache = Cache(asked.cache)
    expected = None
    if asked.references:
        expected = expectations(cache, context, name, configuration, asked.references, say)
    return Workshop(name, configuration, labels, cache, context, expected)


def rows_of(workshop: Workshop, asked: argparse.Namespace, known: dict[Key, Row]) -> Iterator[Row]:
    """Yield the rows that are asked for and not known yet."""
    policy = Policy()
    methods = ordered(asked.methods, policy, workshop.expectations is not None, asked.retrains)
    for deletion, percent in deletions(asked.deletions, asked.shares):
        for seed in asked.seeds:
            forget, cell = cell_of(workshop, deletion, percent / 100, seed)
            done = {method: row for (of, method), row in known.items() if of == cell}
            lacking = [method for method in methods if method not in done]
            if not lacking:
                continue
            say(f"{cell.dataset}: {len(forget)} records, {deletion}, seed {seed}")
            ground = prepare(workshop, cell, forget, policy)
            for method in lacking:
                done[method] = ground.row(method, done)
                yield done[method]


def deletions(kinds: Sequence[str], shares: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Yield each kind of deletion with each share, in percent; a class has its own."""
    for kind in kinds:
        yield from ((kind, share) for share in (shares if kind == "random" else [0.0]))


def cell_of(workshop: Workshop, deletion: str, share: float, seed: int) -> tuple[list[int], Cell]:
    """Return the indices to forget, and the cell by its true name."""
    forget = deleted(workshop.labels, deletion, share, seed)
    if deletion == "class":
        share = len(forget) / len(workshop.labels)
    return forget, Cell(workshop.dataset, deletion, share, seed)


def ordered(
    methods: Sequence[str], policy: Policy, has_references: bool, retrains: int
) -> list[str]:
    """Return the methods with those that they are held against or built from, which come first."""
    needed = {*methods, arms.RETRAIN}
    if arms.LADDER in needed:
        needed |= {arms.arm_of(name, policy, has_references) for name in policy.ladder}
    rest = [method for method in arms.METHODS if method in needed - {arms.RETRAIN}]
    if arms.OTHER_SEED in rest:
        place = rest.index(arms.OTHER_SEED)
        rest[place : place + 1] = arms.other_seeds(retrains)
    return [arms.RETRAIN, *rest]


def say(line: str) -> None:
    """Tell the person who watches; standard output is left to the result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
