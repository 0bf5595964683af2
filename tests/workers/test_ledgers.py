"""The gradient ledger of a version: the right sum, used only where it fits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.workers.gradient_ledgers import begin, kept, load, store
from workers import ledgers, run
from workers.artifacts import load_state
from workers.unlearning.errors import StaleLedger

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


def plainly(weights: dict[str, Tensor], records: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum the losses of softmax regression, and their gradients in closed form, one by one."""
    weight, bias = (weights[name].double().numpy() for name in ("weight", "bias"))
    loss, by_weight, by_bias = 0.0, np.zeros((2, 2)), np.zeros(2)
    for point, label in records:
        x = point.double().numpy()
        scores = weight @ x + bias
        likelihood = np.exp(scores) / np.exp(scores).sum()
        loss -= float(np.log(likelihood[int(label)]))
        error = likelihood - np.eye(2)[int(label)]
        by_weight += np.outer(error, x)
        by_bias += error
    return loss, by_weight, by_bias


@pytest.fixture
def begun(serve: Callable[..., UUID]) -> UUID:
    """The ledger, not yet computed, of a served model's first version."""
    return begin(serve())


@pytest.fixture
def ready(begun: UUID) -> UUID:
    """The same, computed."""
    ledgers.refresh(begun)
    return begun


def test_the_sum_is_that_of_each_retained_record_by_itself(
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_id = serve()
    run.run(job_for(*FORGOTTEN))
    losses = recipe.losses
    monkeypatch.setattr(recipe, "build_model", lambda: nn.Linear(2, 2).double())
    monkeypatch.setattr(
        recipe, "losses", lambda model, batch: losses(model, [batch[0].double(), batch[1]])
    )
    ledger_id = begin(model_id)
    ledgers.refresh(ledger_id)
    summed = load(ledger_id, recipe)
    path = store().find(kept(ledger_id).weights_digest)
    assert path is not None
    weights = load_state(path, kept(ledger_id).weights_digest)
    loss, by_weight, by_bias = plainly(weights, list(recipe.training_data())[40:])
    assert summed.records == kept(ledger_id).records == 80
    assert summed.loss == pytest.approx(loss, rel=1e-12)
    assert {t.dtype for t in summed.gradient.values()} == {torch.float64}
    np.testing.assert_allclose(summed.gradient["weight"].numpy(), by_weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(summed.gradient["bias"].numpy(), by_bias, rtol=0, atol=1e-12)
    # Without this, an empty sum over nothing would do. The seed decides how near to 0 it gets.
    assert np.linalg.norm(by_weight) > 1e-3


def test_a_ledger_is_refused_wherever_it_does_not_fit(ready: UUID, recipe: Any) -> None:
    other = "sha256:" + "0" * 64
    assert load(ready, recipe).records == 120
    for changed, name in (
        ({"weights_digest": other}, "weights"),
        ({"data_fingerprint": other}, "data"),
        ({"forgotten": frozenset({bytes(32)})}, "data"),
        ({"recipe_fingerprint": other}, "recipe"),
        ({"weights_digest": other, "recipe_fingerprint": other}, "weights, recipe"),
        ({"kept": replace(kept(ready), digest=other)}, "file is gone"),
        ({"kept": replace(kept(ready), records=119)}, "file is not"),
        ({"kept": replace(kept(ready), digest=kept(ready).weights_digest)}, "file is not"),
    ):
        with pytest.raises(StaleLedger, match=name):
            load(ready, recipe, **changed)


def test_a_ledger_whose_file_was_damaged_is_refused(ready: UUID, recipe: Any) -> None:
    path = store().find(kept(ready).digest)
    assert path is not None
    content = path.read_bytes()
    path.chmod(0o640)
    for damaged in (content[:-1] + b"!", content[:-8], b""):
        path.write_bytes(damaged)
        with pytest.raises(StaleLedger, match="file is not"):
            load(ready, recipe)
    path.write_bytes(content)
    assert load(ready, recipe).records == 120


class _Confusing(nn.Module):
    # Its parameters are called what a ledger's own entries are called.
    def __init__(self) -> None:
        super().__init__()
        self.records = nn.Parameter(torch.zeros(2, 2))
        self.loss = nn.Parameter(torch.zeros(2))
        self.register_buffer("gradient", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.records.T + self.loss


def test_parameters_may_have_the_names_of_a_ledgers_own_entries(
    recipe: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "build_model", _Confusing)
    ledger_id = request.getfixturevalue("ready")
    summed = load(ledger_id, recipe)
    assert {name: tensor.shape for name, tensor in summed.gradient.items()} == {
        "records": (2, 2),
        "loss": (2,),
    }
    assert summed.records == 120
