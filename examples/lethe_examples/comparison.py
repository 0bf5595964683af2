"""Measure the demo's versions side by side, and against a model retrained without the data."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lethe_examples.digits import Digits
from workers.data import halve
from workers.unlearning.verification import Measurement, measure

MARKS = {"passed": "ok  ", "failed": "FAIL", "inconclusive": "?   "}
RETRAIN_SEED = 1  # another one than the model's, as for somebody who retrains today


@dataclass(frozen=True, slots=True)
class Compared:
    """Three models on the same records, and what the last two cost."""

    before: Measurement
    after: Measurement
    retrained: Measurement
    after_seconds: float
    retrained_seconds: float

    def table(self) -> str:
        """Return the comparison for people."""
        rows = [
            _row("", "retain", "forget", "holdout", "attack AUC [interval]", "seconds"),
            _row("before", *_cells(self.before), ""),
            _row("after", *_cells(self.after), f"{self.after_seconds:.1f}"),
            _row("retrained", *_cells(self.retrained), f"{self.retrained_seconds:.1f}"),
        ]
        return "\n".join(rows)


def compare(checkpoint: Path, downloaded: bytes, forgotten: set[str], job: Any) -> Compared:
    """Measure the version before, the one downloaded, and one retrained here without the data."""
    recipe = Digits()
    data = recipe.training_data()
    ids = recipe.sample_ids()
    forget = Subset(data, [i for i, sample_id in enumerate(ids) if sample_id in forgotten])
    retain = Subset(data, [i for i, sample_id in enumerate(ids) if sample_id not in forgotten])
    _, judging = halve(recipe.holdout_data())

    def measured(model: nn.Module) -> Measurement:
        return measure(recipe, model, forget, retain, judging, 0.95)

    # One thread, as the worker has, so that the seconds can be compared.
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(RETRAIN_SEED)
        retrained = recipe.build_model()
    started = time.monotonic()
    recipe.train(retrained, retain, RETRAIN_SEED)
    retrained_seconds = time.monotonic() - started
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(downloaded)
        file.flush()
        after = _load(recipe, safetensors.torch.load_file(file.name))
    return Compared(
        before=measured(_load(recipe, safetensors.torch.load_file(checkpoint))),
        after=measured(after),
        retrained=measured(retrained),
        after_seconds=sum(rung["seconds"] for rung in job["rungs"]),
        retrained_seconds=retrained_seconds,
    )


def describe_rung(rung: Any) -> Iterator[str]:
    """Yield what one method was found to have done."""
    yield f"attempt {rung['attempt']}: {rung['method']} {rung['outcome']} ({rung['seconds']:.1f} s)"
    if rung["verdict"] is None:
        yield f"  {rung['evidence']['error']}"
        return
    for check in rung["verdict"]["checks"]:
        mark = MARKS[check["outcome"]]
        ends = check["interval"]
        interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
        yield f"  {mark} {check['name']}: {check['value']:.4f}{interval}  {check['note']}"


def _load(recipe: Digits, state: dict[str, Tensor]) -> nn.Module:
    model = recipe.build_model()
    model.load_state_dict(state)
    return model


def _cells(found: Measurement) -> list[str]:
    attack = found.attacks[0]
    low, high = attack.interval(found.confidence)
    parts = [f"{part.metric:.3f}" for part in (found.retain, found.forget, found.holdout)]
    return [*parts, f"{attack.auc:.3f} [{low:.3f}, {high:.3f}]"]


def _row(*cells: str) -> str:
    widths = (10, 8, 8, 8, 24, 8)
    return "   " + "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
