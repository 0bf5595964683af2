"""What a run of the benchmark of forgetting writes, on a data set of eighty points."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from torch.utils.data import Subset, TensorDataset

from benchmarks import (
    arms,
    forgetting,
)
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.rows import load
from benchmarks.training import Labelled, Setup
from benchmarks.workshop import deleted
from lethe.policy import Policy
from lethe_examples.fashion_mnist import DatasetMissing
from workers.data import halve


def accuracy(model: nn.Module, data: TensorDataset, indices: list[int]) -> float:
    right = [int(model(data[i][0][None]).argmax()) == int(data[i][1]) for i in indices]
    return sum(right) / len(right)


def test_each_method_has_a_row_for_each_deletion_and_seed(whole: Any) -> None:
    wanted = {
        (deletion, seed, method)
        for deletion in ("random", "class")
        for seed in (0, 1)
        for method in (*arms.METHODS, "retrain_other_seed_2")
    }
    assert set(whole) == wanted
    assert all(row["forgotten"] == 16 for (kind, *_), row in whole.items() if kind == "random")
    assert {row["error"] for row in whole.values()} == {None}


def test_accuracies_are_those_of_a_model_trained_by_hand(whole: Any, recipe: Labelled) -> None:
    data, holdout = recipe.training_data(), recipe.holdout_data()
    forget = deleted(data.tensors[1], "random", 0.2, 1)
    retain = [index for index in range(80) if index not in forget]
    judging = halve(holdout)[1].indices
    for method, trained_on, seed in (
        ("original", range(80), 1),
        ("retrain", retain, 1_001),
        ("retrain_other_seed", retain, 2_001),
        ("retrain_other_seed_2", retain, 12_001),
    ):
        model = recipe.build_model()
        recipe.train(model, Subset(data, trained_on), seed)
        row = whole["random", 1, method]
        assert row["ra"] == pytest.approx(accuracy(model, data, retain))
        assert row["ua"] == pytest.approx(accuracy(model, data, forget))
        assert row["ta"] == pytest.approx(accuracy(model, holdout, judging))


def test_gap_floor_and_time_are_relative_to_the_retrain_of_the_cell(whole: Any) -> None:
    def distance(row: Any, other: Any) -> float:
        return float(np.mean([abs(row[k] - other[k]) for k in ("ra", "ua", "ta")]))

    for (deletion, seed, _), row in whole.items():
        retrain = whole[deletion, seed, "retrain"]
        assert row["gap"] == pytest.approx(distance(row, retrain))
        assert row["time_ratio"] == pytest.approx(row["cpu_seconds"] / retrain["cpu_seconds"])
        floor = np.mean(
            [
                distance(whole[deletion, s, other], whole[deletion, s, "retrain"])
                for s in (0, 1)
                for other in ("retrain_other_seed", "retrain_other_seed_2")
            ]
        )
        assert row["noise_floor"] == pytest.approx(floor)
    assert any(row["gap"] > 0 for row in whole.values())


def test_doing_nothing_never_passes_and_a_retrain_that_changes_does(whole: Any) -> None:
    for seed in (0, 1):
        nothing = whole["random", seed, "original"]
        assert nothing["verdict"] == "failed"
        assert "changed" in nothing["failed_checks"]
        assert nothing["seconds"] == 0
        assert "changed" not in whole["random", seed, "retrain"]["failed_checks"]


def test_a_ladder_is_paid_for_every_rung_that_it_climbed(whole: Any) -> None:
    rungs = ["iau_adam", "nabla_tau_per_sample", "retrain"]
    assert rungs == [arms.arm_of(name, Policy(), True) for name in Policy().ladder]
    for deletion in ("random", "class"):
        rows = [whole[deletion, 0, method] for method in rungs]
        passed = [row["verdict"] == "passed" for row in rows]
        climbed_rows = rows[: passed.index(True) + 1] if any(passed) else rows
        ladder = whole[deletion, 0, "ladder"]
        assert ladder["seconds"] == pytest.approx(sum(row["seconds"] for row in climbed_rows))
        assert ladder["rung"] == (climbed_rows[-1]["method"] if any(passed) else None)
        assert ladder["ua"] == climbed_rows[-1]["ua"]


def test_what_is_known_is_not_computed_again(
    whole: Any,
    run: Callable[..., int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Labelled, "train", fail)
    before = (folder / "results.jsonl").read_bytes()
    assert run() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 0
    assert (folder / "results.jsonl").read_bytes() == before
    # Cut off in the middle of a line, as by a kill: that row alone is computed again.
    (folder / "torn.jsonl").write_bytes(before[:-7])
    assert run(out="torn.jsonl") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 1
    assert set(load(folder / "torn.jsonl")) == set(load(folder / "results.jsonl"))
    with pytest.raises(AssertionError, match="trained again"):
        run("--seeds", "7", out="other.jsonl")


def test_a_method_alone_brings_what_it_is_held_against(
    whole: Any, run: Callable[..., int], folder: Path
) -> None:
    assert run("--methods", "iau_sgd", "--deletions", "random", out="one.jsonl") == 0
    found = load(folder / "one.jsonl")
    assert {row.method for row in found.values()} == {"retrain", "iau_sgd"}
    for row in found.values():
        assert row.noise_floor is None
        assert row.ua == whole["random", row.seed, row.method]["ua"]


def test_a_missing_data_set_is_skipped_aloud_and_never_replaced(
    whole: Any,
    run: Callable[..., int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(setup: Setup, folder: Path) -> Labelled:
        raise DatasetMissing("install the moon")

    monkeypatch.setitem(DATASETS, "absent", Dataset("Absent", Setup(1, 1), missing))  # type: ignore[arg-type]
    asked = ("--datasets", "absent", "tiny", "--methods", "original", "--deletions", "random")
    assert run(*asked, out="absent.jsonl") == 1
    told = capsys.readouterr()
    assert "absent is skipped: install the moon" in told.err
    assert json.loads(told.out.splitlines()[-1])["missing"] == ["absent"]
    assert {row.dataset for row in load(folder / "absent.jsonl").values()} == {"tiny"}


@pytest.mark.parametrize(
    "arguments",
    [["--shares", "0"], ["--shares", "100"], ["--references", "6"], ["--retrains", "0"]],
)
def test_what_cannot_be_is_refused_at_the_command_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        forgetting.options(arguments)


def test_quick_changes_only_what_is_not_named() -> None:
    asked = forgetting.options(["--quick", "--shares", "1"])
    assert (asked.shares, asked.deletions) == ([1.0], ["random"])
    everything = forgetting.options([])
    assert everything.shares == [0.1, 1, 5, 10, 30]
    assert (asked.retrains, everything.retrains) == (1, 3)
    assert set(everything.datasets) > {"fashion_mnist", "fashion_mnist_resnet", "digits", "adult"}
