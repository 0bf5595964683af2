"""Twenty batches forgotten one after another, and how far that drifts from a retrain.

``python -m benchmarks.sequence`` takes some minutes. Each batch starts from the version before, as
the service's jobs do, and its outcome is held against a retrain without anything that was forgotten
so far. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.datasets import DATASETS
from benchmarks.expectations import Expectations, chosen
from benchmarks.forgetting import FOLDER, open_workshop, say
from benchmarks.ground import RETRAIN_SEED
from benchmarks.workshop import State, Workshop, subset
from lethe.policy import Bounds, MethodOptions
from workers.data import halve
from workers.unlearning.attacks import CALIBRATED
from workers.unlearning.method import method_for
from workers.unlearning.references import Judges
from workers.unlearning.verification import Measurement, measure
from workers.unlearning.weights import distance

INTRODUCTION = """\
# Many batches on one model

Written by `python -m benchmarks.sequence --report docs/forgetting-in-sequence.md`. Each batch is
forgotten by ∇τ with targets of its own records, from the version before; nothing is rebased, so
that the *unlearning debt* grows. After each batch the version is held against a retrain without all
that was forgotten so far: **gap** and **floor** as in [How well it forgets](forgetting.md), the
floor between two retrains; **AUC** of the calibrated attack on everything forgotten so far, for the
version and for the retrain. The service's debt is the **share** forgotten and the **drift**, which
is the sum of the relative distances from version to version; **way** is the one from the first.
"""

HEADINGS = (
    "batch",
    "share",
    "drift",
    "way",
    "RA",
    "UA",
    "TA",
    "gap",
    "floor",
    "AUC",
    "AUC retrain",
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one more batch left."""

    batch: int
    share: float
    """Of the training data, forgotten so far."""
    drift: float
    """Σ ‖θ_b − θ_{b−1}‖₂ / ‖θ_{b−1}‖₂ so far."""
    way: float
    """‖θ_b − θ_0‖₂ / ‖θ_0‖₂."""
    ra: float
    ua: float
    ta: float
    gap: float
    floor: float
    auc_calibrated: float
    auc_calibrated_retrain: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequence", description=__doc__)
    add = parser.add_argument
    add("--dataset", choices=DATASETS, default="fashion_mnist_small")
    add("--batches", type=int, default=20)
    add("--share", type=float, default=1.0, help="of the training data in a batch, in percent")
    add("--seed", type=int, default=0)
    add("--references", type=int, default=12)
    add("--cache", type=Path, default=FOLDER / "models", help="folder of trained models")
    add("--data", type=Path, default=FOLDER / "data", help="folder of downloads")
    add("--report", type=Path, help="the Markdown page to write")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    workshop = open_workshop(asked.dataset, asked)
    steps = []
    for step in forget_in_turn(workshop, asked.batches, asked.share / 100, asked.seed):
        say(" ".join(_cells(step)))
        steps.append(step)
    if asked.report:
        asked.report.write_text(page(DATASETS[asked.dataset].title, asked.seed, steps))
    print(json.dumps([asdict(step) for step in steps]))
    return 0


def forget_in_turn(workshop: Workshop, batches: int, share: float, seed: int) -> Iterator[Step]:
    """Forget batch after batch of random records, and yield what each leaves.

    Raises:
        ValueError: the workshop has no references, or the batches hold more than there is.

    """
    expectations, N = workshop.expectations, len(workshop.labels)
    size = max(1, round(share * N))
    if expectations is None or batches * size >= N:
        raise ValueError("a sequence needs references, and records that are left in the end")
    data, (validation, _) = workshop.recipe.training_data(), halve(workshop.recipe.holdout_data())
    generator = torch.Generator().manual_seed(9_000 + seed)
    order: list[int] = torch.randperm(N, generator=generator).tolist()
    method = method_for("nabla_tau", MethodOptions())
    first = state = workshop.original(seed).tensors
    names = [name for name, _ in workshop.load(first).named_parameters()]
    drift = 0.0
    for batch in range(1, batches + 1):
        forget = sorted(order[(batch - 1) * size : batch * size])
        gone = sorted(order[: batch * size])
        retain = sorted(order[batch * size :])
        before = state
        targets = chosen(expectations.training["target"], forget).mean
        parts = (subset(data, forget), subset(data, retain), validation)
        context = workshop.context_for(seed + batch, targets)
        state = method.unlearn(workshop.load(before), *parts, context).state
        drift += distance(before, state, names).relative
        shown = partial(_measure, workshop, expectations, gone, retain)
        retrain = partial(workshop.retrained, gone, retain)
        after, exact = shown(state), shown(retrain(RETRAIN_SEED + seed).tensors)
        other = shown(retrain(RETRAIN_SEED + seed + 1).tensors)
        yield Step(
            batch=batch,
            share=len(gone) / N,
            drift=drift,
            way=distance(first, state, names).relative,
            ra=after.retain.metric,
            ua=after.forget.metric,
            ta=after.holdout.metric,
            gap=gap(after, exact),
            floor=gap(other, exact),
            auc_calibrated=_calibrated(after),
            auc_calibrated_retrain=_calibrated(exact),
        )


def gap(one: Measurement, other: Measurement) -> float:
    """Return the mean of |difference| of the metrics on retained, forgotten and holdout data."""
    parts = (
        (one.retain, other.retain),
        (one.forget, other.forget),
        (one.holdout, other.holdout),
    )
    return sum(abs(a.metric - b.metric) for a, b in parts) / 3


def page(title: str, seed: int, steps: Sequence[Step]) -> str:
    """Return the page as Markdown."""
    lines = [INTRODUCTION, f"## {title}, seed {seed}\n", _row(HEADINGS)]
    lines.append(_row("---:" for _ in HEADINGS))
    return "\n".join([*lines, *(_row(_cells(step)) for step in steps), ""])


def _measure(
    workshop: Workshop,
    expectations: Expectations,
    forget: list[int],
    retain: list[int],
    state: State,
) -> Measurement:
    recipe = workshop.recipe
    data, (_, judging) = recipe.training_data(), halve(recipe.holdout_data())
    judges = Judges(
        forgotten=chosen(expectations.training["judge"], forget),
        unseen=chosen(expectations.holdout["judge"], judging.indices),
    )
    sets = (subset(data, forget), subset(data, retain), judging)
    return measure(recipe, workshop.load(state), *sets, Bounds().confidence, judges)


def _calibrated(found: Measurement) -> float:
    return next(attack.auc for attack in found.attacks if attack.name == CALIBRATED)


def _cells(step: Step) -> list[str]:
    batch, *numbers = asdict(step).values()
    return [str(batch), *(f"{number:.3f}" for number in numbers)]


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
