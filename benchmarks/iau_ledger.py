"""What IAU's step costs with a gradient ledger, against a pass over the retained data.

Fashion-MNIST, LeNet-5, freshly drawn weights: the time does not depend on them. A round takes the
short steps in turns, some before and some after the long one, and times are compared within it, so
that what else the machine does meanwhile falls on all of them. The last line is a JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from lethe.policy import IauOptions
from lethe_examples.classifier import initialise
from lethe_examples.fashion_mnist import DatasetMissing, FashionMnist
from workers.unlearning.contract import Context
from workers.unlearning.gradients import gradient_sum
from workers.unlearning.iau import Iau
from workers.unlearning.ledger import GradientSum

SEED = 0
# The retained data of the smaller step, and of the larger one.
TIMES_MORE = 10
# Short steps of each kind, before the long one and again after it.
TURNS = 3


def main() -> int:
    """Run the benchmark and return the exit status: 2 where the data set is missing."""
    arguments = _arguments()
    torch.set_num_threads(1)
    recipe = FashionMnist()
    try:
        available = len(recipe.training_data())
    except DatasetMissing as error:
        print(error, file=sys.stderr)
        return 2
    forgotten = round(arguments.retained * arguments.share / (1 - arguments.share))
    if forgotten < 1 or forgotten + arguments.retained > available:
        print(f"{forgotten} to forget and {arguments.retained} to retain of {available}?")
        return 1
    steps = _steps(recipe, forgotten, arguments.retained)
    for step in steps.values():
        step.take(recipe)  # the first time is always slower
    rounds = []
    for number in range(arguments.repeat):
        rounds.append(_round(recipe, steps))
        print(f"round {number + 1} of {arguments.repeat}: {_told(rounds[-1])}", file=sys.stderr)
    _report(rounds, forgotten, arguments.retained)
    return 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds that one step took: on the clock, and of the processor's time."""

    wall: float
    cpu: float


Round = dict[str, Taken]


@dataclass(frozen=True, slots=True)
class Step:
    """IAU's step on a forget and a retain set, with a ledger or without."""

    forget: Subset[Any]
    retain: Subset[Any]
    ledger: GradientSum | None

    def take(self, recipe: FashionMnist) -> Taken:
        """Take the step from the benchmark's weights.

        Raises:
            RuntimeError: it did not get its gradient from where it was to.

        """
        model, context = _model(recipe), _context(recipe, self.ledger)
        wall, cpu = time.perf_counter(), time.process_time()
        unlearned = Iau(IauOptions()).unlearn(
            model, self.forget, self.retain, recipe.holdout_data(), context
        )
        taken = Taken(time.perf_counter() - wall, time.process_time() - cpu)
        source = "full_pass" if self.ledger is None else "ledger"
        if unlearned.evidence["gradient"] != source:
            raise RuntimeError(f"not the step that was to be measured: {unlearned.evidence}")
        return taken


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retained", type=int, default=48_000, help="records to retain")
    parser.add_argument("--share", type=float, default=0.05, help="share of the data to forget")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    return parser.parse_args()


def _steps(recipe: FashionMnist, forgotten: int, retained: int) -> dict[str, Step]:
    data = recipe.training_data()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SEED)).tolist()
    forget, rest = order[:forgotten], order[forgotten : forgotten + retained]
    few = rest[: retained // TIMES_MORE]

    def ledger(kept: list[int]) -> GradientSum:
        context = _context(recipe, None)
        return gradient_sum(_model(recipe), Subset(data, forget + kept), context, lambda _: None)

    def step(kept: list[int], ledger: GradientSum | None) -> Step:
        return Step(Subset(data, forget), Subset(data, kept), ledger)

    return {
        "ledger": step(rest, ledger(rest)),
        "full": step(rest, None),
        "ledger_few": step(few, ledger(few)),
    }


def _model(recipe: FashionMnist) -> nn.Module:
    model: nn.Module = recipe.build_model()
    initialise(model, SEED)
    return model


def _context(recipe: FashionMnist, ledger: GradientSum | None) -> Context:
    return Context(
        recipe=recipe,
        seed=SEED,
        device=torch.device("cpu"),
        progress=lambda *_: None,
        cancelled=lambda: False,
        ledger=ledger,
    )


def _round(recipe: FashionMnist, steps: dict[str, Step]) -> Round:
    short = ["ledger", "ledger_few"] * TURNS
    # Backwards after the long step, so that neither of the two comes first more often.
    order = [*short, "full", *reversed(short)]
    taken = [(name, steps[name].take(recipe)) for name in order]
    return {
        name: Taken(
            statistics.median(each.wall for which, each in taken if which == name),
            statistics.median(each.cpu for which, each in taken if which == name),
        )
        for name in steps
    }


def _told(taken: Round) -> str:
    return ", ".join(f"{name} {taken[name].wall:.2f} s" for name in sorted(taken))


def _report(rounds: list[Round], forgotten: int, retained: int) -> None:
    ratios: dict[str, Callable[[Round], float]] = {
        "ledger_over_full": lambda r: r["ledger"].wall / r["full"].wall,
        "growth_tenfold": lambda r: r["ledger"].wall / r["ledger_few"].wall - 1,
        "ledger_over_full_cpu": lambda r: r["ledger"].cpu / r["full"].cpu,
        "growth_tenfold_cpu": lambda r: r["ledger"].cpu / r["ledger_few"].cpu - 1,
    }
    found: dict[str, Any] = {
        "forgotten": forgotten,
        "retained": retained,
        "repeat": len(rounds),
        "seconds": {
            name: statistics.median(taken[name].wall for taken in rounds) for name in rounds[0]
        },
        "spread": {},
    }
    print(f"{forgotten} of {forgotten + retained} records forgotten, {len(rounds)} rounds")
    for name, ratio in ratios.items():
        values = [ratio(taken) for taken in rounds]
        found[name] = statistics.median(values)
        found["spread"][name] = [min(values), max(values)]
        print(f"{name:22s} {found[name]:8.4f}   [{min(values):.4f}, {max(values):.4f}]")
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
