"""One cell of the benchmark: what its methods start from, and the row that each of them gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from benchmarks import arms
from benchmarks.cache import Kept
from benchmarks.expectations import chosen
from benchmarks.rows import Cell, Row, gap
from benchmarks.timing import NOTHING, Took, timed
from benchmarks.workshop import State, Workshop, subset
from lethe.policy import Policy
from lethe.recipe import CannotTrain, MapDataset
from workers.data import halve
from workers.unlearning.attacks import CALIBRATED
from workers.unlearning.contract import Unlearned
from workers.unlearning.errors import UnlearningError
from workers.unlearning.ledger import GradientSum
from workers.unlearning.method import method_for
from workers.unlearning.references import Judges
from workers.unlearning.verification import Measurement, measure, verify

# Far apart, so that no two models of a data set are trained from one seed.
RETRAIN_SEED = 1_000
OTHER_SEED = 2_000
APART = 10_000


def prepare(workshop: Workshop, cell: Cell, forget: list[int], policy: Policy) -> Ground:
    """Train, or take out of the cache, what every method of the cell is compared with."""
    recipe, expectations = workshop.recipe, workshop.expectations
    data = recipe.training_data()
    gone = set(forget)
    retain = [index for index in range(len(data)) if index not in gone]
    validation, judging = halve(recipe.holdout_data())
    targets, judges = None, None
    if expectations is not None:
        targets = chosen(expectations.training["target"], forget).mean
        judges = Judges(
            forgotten=chosen(expectations.training["judge"], forget),
            unseen=chosen(expectations.holdout["judge"], judging.indices),
        )
    parts = Parts(subset(data, forget), subset(data, retain), validation, judging)
    original = workshop.original(cell.seed)
    ledger, ledger_took = workshop.ledger(cell.seed)
    retrain = partial(workshop.retrained, forget, retain)
    return Ground(
        cell=cell,
        workshop=workshop,
        policy=policy,
        parts=parts,
        targets=targets,
        judges=judges,
        original=original,
        ledger=ledger,
        ledger_took=ledger_took,
        retrain=partial(retrain, RETRAIN_SEED + cell.seed),
        other_seed=lambda number: retrain(OTHER_SEED + (number - 1) * APART + cell.seed),
        before=_measure(workshop, parts, judges, policy, original.tensors),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """The records of one cell."""

    forget: MapDataset
    retain: MapDataset
    validation: MapDataset
    judging: MapDataset


@dataclass(frozen=True, slots=True)
class Ground:
    """One cell, ready for its methods."""

    cell: Cell
    workshop: Workshop
    policy: Policy
    parts: Parts
    targets: Tensor | None
    judges: Judges | None
    original: Kept
    ledger: GradientSum
    ledger_took: Took
    retrain: Callable[[], Kept]
    other_seed: Callable[[int], Kept]
    """Called with the number of the retrain, from one."""
    before: Measurement

    def row(self, method: str, done: Mapping[str, Row]) -> Row:
        """Return the row of a method; ``done`` are those of the cell that it builds on."""
        if method == arms.LADDER:
            return climbed(self.policy, done, self.targets is not None)
        try:
            unlearned, took = self._unlearn(method)
        except (CannotTrain, UnlearningError) as error:
            # The exception's type alone: what a recipe says may hold its data.
            return replace(self._blank(method), error=type(error).__name__)
        row = self._judged(method, unlearned, took)
        retrain = row if method == arms.RETRAIN else done[arms.RETRAIN]
        ratio = took.cpu_seconds / retrain.cpu_seconds if retrain.cpu_seconds else None
        return replace(row, gap=gap(row, retrain), time_ratio=ratio)

    def _unlearn(self, method: str) -> tuple[Unlearned, Took]:
        if method == arms.ORIGINAL:
            return Unlearned(self.original.tensors, "approximate", {}), NOTHING
        other = arms.number_of_other_seed(method)
        if method == arms.RETRAIN or other is not None:
            kept = self.retrain() if other is None else self.other_seed(other)
            return Unlearned(kept.tensors, "exact", {}), kept.took
        unlearn = arms.BASELINES.get(method) or method_for(*arms.PRODUCT[method]).unlearn
        parts = self.parts
        context = self.workshop.context_for(self.cell.seed, self.targets, self.ledger)
        model = self.workshop.load(self.original.tensors)
        return timed(lambda: unlearn(model, parts.forget, parts.retain, parts.validation, context))

    def _judged(self, method: str, unlearned: Unlearned, took: Took) -> Row:
        after = self.before
        if method != arms.ORIGINAL:
            after = _measure(self.workshop, self.parts, self.judges, self.policy, unlearned.state)
        verdict = verify(
            before_state=self.original.tensors,
            after_state=unlearned.state,
            before=self.before,
            after=after,
            guarantee=unlearned.guarantee,
            bounds=self.policy.bounds,
        )
        attacks = {attack.name: attack for attack in after.attacks}
        strictest = attacks.get(CALIBRATED) or attacks["loss"]
        return replace(
            self._blank(method),
            ra=finite(after.retain.metric),
            ua=finite(after.forget.metric),
            ta=finite(after.holdout.metric),
            auc_loss=finite(attacks["loss"].auc),
            auc_entropy=finite(attacks["entropy"].auc) if "entropy" in attacks else None,
            auc_calibrated=finite(attacks[CALIBRATED].auc) if CALIBRATED in attacks else None,
            tpr_1=finite(dict(strictest.true_positive_rates)[0.01]),
            seconds=took.seconds,
            cpu_seconds=took.cpu_seconds,
            verdict=verdict.outcome,
            failed_checks=[check.name for check in verdict.checks if not check.passed],
            options=dict(unlearned.evidence) if method in arms.BASELINES else options_of(method),
        )

    def _blank(self, method: str) -> Row:
        expectations = self.workshop.expectations
        return Row(
            *self.cell,
            method,
            forgotten=len(self.parts.forget),
            references_seconds=expectations.took.seconds if expectations else 0.0,
            ledger_seconds=self.ledger_took.seconds,
        )


def options_of(method: str) -> dict[str, Any]:
    """Return the options of one of the service's methods, as a policy would name them."""
    if method not in arms.PRODUCT:
        return {}
    name, options = arms.PRODUCT[method]
    chosen_options: dict[str, Any] = options.model_dump(mode="json")[name]
    return chosen_options


def climbed(policy: Policy, done: Mapping[str, Row], has_references: bool) -> Row:
    """Return the row of a policy's ladder: that of the first rung that passed, or of the last."""
    took, row = NOTHING, None
    for name in policy.ladder:
        row = done[arms.arm_of(name, policy, has_references)]
        took += Took(row.seconds, row.cpu_seconds)
        if row.verdict == "passed":
            break
    if row is None:  # a policy's ladder has at least one rung
        raise ValueError("the ladder has no rung")
    retrain = done[arms.RETRAIN].cpu_seconds
    return replace(
        row,
        method=arms.LADDER,
        seconds=took.seconds,
        cpu_seconds=took.cpu_seconds,
        time_ratio=took.cpu_seconds / retrain if retrain else None,
        rung=row.method if row.verdict == "passed" else None,
        rung_seconds=row.seconds if row.verdict == "passed" else None,
    )


def finite(number: float) -> float | None:
    """Return the number, or None where JSON has no word for it."""
    return number if math.isfinite(number) else None


def _measure(
    workshop: Workshop, parts: Parts, judges: Judges | None, policy: Policy, state: State
) -> Measurement:
    return measure(
        workshop.recipe,
        workshop.load(state),
        parts.forget,
        parts.retain,
        parts.judging,
        policy.bounds.confidence,
        judges=judges,
    )
