"""A data set of eighty points, and the benchmark run on it once for all tests."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks import forgetting, models
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.training import Labelled, Setup
from workers.unlearning.contract import Context

SETUP = Setup(records=80, epochs=12, learning_rate=1e-2, batch_size=20)


def points(number: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 6, generator=generator)
    noise = torch.randn(number, generator=generator)
    return TensorDataset(x, (x[:, 0] + noise > 0).long())


def tiny(setup: Setup, folder: Path) -> Labelled:
    return Labelled(setup, points(100, 1), points(90, 2), lambda: models.mlp(6, 2, width=12))


@pytest.fixture
def recipe() -> Labelled:
    """Eighty points in training, ninety held out; two classes."""
    return tiny(SETUP, Path())


@pytest.fixture
def context() -> Callable[..., Context]:
    """Make the context of a method's run."""

    def make(recipe: Labelled, seed: int = 0) -> Context:
        return Context(recipe, seed, torch.device("cpu"), lambda *_: None, lambda: False)

    return make


@pytest.fixture(autouse=True, scope="session")
def _tiny_data_set() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "tiny", Dataset("Tiny", SETUP, tiny))  # type: ignore[arg-type]
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="session")
def run(folder: Path) -> Callable[..., int]:
    def make(*further: str, out: str = "results.jsonl") -> int:
        places = ["--out", str(folder / out), "--cache", str(folder / "models")]
        few = ["--references", "4", "--retrains", "2"]
        basic = ["--datasets", "tiny", "--shares", "20", "--seeds", "0", "1", *few]
        return forgetting.main([*basic, *places, *further])

    return make


@pytest.fixture(scope="session")
def whole(run: Callable[..., int], folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Every method on both kinds of deletion, by deletion, seed and method."""
    assert run("--report", str(folder / "page.md")) == 0
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {(row["deletion"], row["seed"], row["method"]): row for row in found}
