"""The gradient ledger of a version: the right sum, used only where it fits, gone in time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from sqlalchemy import select, text, update
from torch import Tensor, nn

from app.artifacts import ArtifactStore
from app.db import transaction
from app.derived import ledgers as rows
from app.errors import StorageFailed
from app.registry import service as registry
from app.settings import settings
from app.tables import AuditEntry, GradientLedger, ManifestEntry, RegisteredModel
from lethe.policy import Policy, References
from workers import check, ledgers, run
from workers.artifacts import load_state
from workers.recipes import recipe_fingerprint
from workers.unlearning.errors import NotFinite, StaleLedger
from workers.unlearning.ledger import GradientSum

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the worker may catch it."""


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def files() -> set[str]:
    """The names of all files in the store, also of those that have no digest for a name yet."""
    return {path.name for path in settings().artifacts_folder.rglob("*") if path.is_file()}


def begin(model_id: UUID) -> UUID:
    with transaction() as session:
        version_id = session.get_one(RegisteredModel, model_id).current_version_id
        assert version_id is not None
        return rows.begin(session, model_id, version_id).id


def row(ledger_id: UUID) -> GradientLedger:
    with transaction() as session:
        return session.get_one(GradientLedger, ledger_id)


def void(ledger_id: UUID) -> None:
    with transaction() as session:
        version_id = session.get_one(GradientLedger, ledger_id).version_id
        assert rows.void(session, version_id, "test") is not None


def die() -> None:
    with transaction() as session:
        session.execute(
            update(GradientLedger).values(lease_expires_at=text("now() - interval '1 second'"))
        )


def kept(ledger_id: UUID) -> rows.Kept:
    with transaction() as session:
        version_id = session.get_one(GradientLedger, ledger_id).version_id
        found = rows.find(session, version_id)
    assert found is not None
    return found


def load(ledger_id: UUID, recipe: Any, **changed: Any) -> GradientSum:
    """Load a ledger for its own version, data and recipe, or others."""
    with transaction() as session:
        model = session.scalars(select(RegisteredModel)).first()
        gone = ManifestEntry.forgotten_by_job_id.is_not(None)
        forgotten = frozenset(session.scalars(select(ManifestEntry.sample_digest).where(gone)))
    assert model is not None
    own = changed.get("kept") or kept(ledger_id)
    fits = {
        "kept": own,
        "store": store(),
        "weights_digest": own.weights_digest,
        "data_fingerprint": model.data_fingerprint,
        "forgotten": forgotten,
        "recipe_fingerprint": recipe_fingerprint(recipe),
    }
    return ledgers.load(**{**fits, **changed})


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
    # Without this, an empty sum over nothing would do.
    assert np.linalg.norm(by_weight) > 0.1


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


def test_what_is_forgotten_leaves_with_the_file_of_the_parents_ledger(
    ready: UUID, job_for: Callable[..., UUID], recipe: Any
) -> None:
    old = kept(ready)
    run.run(job_for(*FORGOTTEN))
    assert row(ready).status == "void"
    with pytest.raises(StaleLedger, match="data"):
        load(ready, recipe, kept=old)
    assert store().find(old.digest) is not None
    assert ledgers.remove_void() == 1
    assert store().find(old.digest) is None
    assert (row(ready).digest, ledgers.remove_void()) == (None, 0)
    with transaction() as session:
        events = session.scalars(select(AuditEntry.event).where(AuditEntry.subject == ready))
        assert "ledger.removed" in list(events)


def test_a_file_that_two_models_share_stays_for_the_second(ready: UUID, stored: str) -> None:
    second = _twin(stored)
    ledgers.refresh(second)
    digest = kept(second).digest
    assert digest == kept(ready).digest
    void(ready)
    assert ledgers.remove_void(store()) == 0
    assert store().find(digest) is not None
    void(second)
    assert ledgers.remove_void(store()) == 2
    assert store().find(digest) is None


def _twin(checkpoint: str) -> UUID:
    """Serve the same checkpoint as a second model, and return the ledger of its version."""
    policy = Policy(ladder=("retrain",), references=References(count=0))
    with transaction() as session:
        twin = registry.register(session, "twin", "tiny", checkpoint, policy).id
    check.check(twin)
    return begin(twin)


@pytest.mark.parametrize("point", ["gradient_sum", "dump_state", "ledgers.announce"])
def test_a_ledger_superseded_while_it_is_computed_leaves_no_file(
    begun: UUID, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    before = files()
    owner, name = (rows, "announce") if "." in point else (ledgers, point)
    real = getattr(owner, name)

    def supersede(*args: Any, **kwargs: Any) -> Any:
        if owner is ledgers:
            void(begun)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, supersede)
    if owner is rows:  # right after the announcement
        monkeypatch.setattr(ArtifactStore, "incoming", _then(ArtifactStore.incoming, void, begun))
    ledgers.refresh(begun)
    assert row(begun).status == "void"
    assert files() == before


def _then(real: Any, act: Callable[[UUID], None], ledger_id: UUID) -> Callable[..., Any]:
    def acted(*args: Any, **kwargs: Any) -> Any:
        act(ledger_id)
        return real(*args, **kwargs)

    return acted


def test_the_file_of_a_killed_worker_is_taken_over_or_removed(
    begun: UUID, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files()
    _kill_once_the_file_has_its_name(begun, monkeypatch)
    assert row(begun).status == "computing"
    assert len(files() - before) == 1
    ledgers.refresh(begun)  # its lease still runs
    assert row(begun).attempts == 1
    die()
    _kill_once_the_file_has_its_name(begun, monkeypatch)
    die()
    ledgers.refresh(begun)
    assert (row(begun).status, row(begun).attempts) == ("ready", 3)
    assert load(begun, recipe).records == 120


def test_the_file_of_a_worker_killed_before_the_end_goes_with_its_ledger(
    begun: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files()
    _kill_once_the_file_has_its_name(begun, monkeypatch)
    void(begun)
    assert ledgers.remove_void() == 1
    assert files() == before


def _kill_once_the_file_has_its_name(ledger_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.artifacts import Incoming

    real = Incoming.keep

    def die_after(file: Incoming) -> None:
        real(file)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Incoming, "keep", die_after)
        with pytest.raises(Killed):
            ledgers.refresh(ledger_id)


def test_a_worker_whose_lease_was_stolen_does_not_finish(
    begun: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files()
    real = ledgers.gradient_sum

    def stall(*args: Any) -> GradientSum:
        die()
        with transaction() as session:
            assert rows.claim(session, begun, settings().lease) is not None
        return real(*args)

    monkeypatch.setattr(ledgers, "gradient_sum", stall)
    ledgers.refresh(begun)
    assert (row(begun).status, row(begun).fence, row(begun).error) == ("computing", 2, None)
    assert files() == before


def test_an_exception_of_the_recipe_is_tried_again_and_never_quoted(
    begun: UUID,
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    reread: Callable[[str, str], None],
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("person-7")

    reread("LETHE_JOB_ATTEMPTS", "2")
    monkeypatch.setattr(recipe, "losses", fail)
    for status in ("computing", "failed"):
        ledgers.refresh(begun)
        told = row(begun)
        assert told.status == status
        assert "KeyError" in str(told.error)
        assert "person-7" not in str(told.error) + "".join(capfd.readouterr())


def test_a_ledger_whose_workers_all_died_is_given_up_and_left_alone(
    begun: UUID, monkeypatch: pytest.MonkeyPatch, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "1")
    with transaction() as session:
        rows.claim(session, begun, settings().lease)
    die()
    monkeypatch.setattr(ledgers, "gradient_sum", pytest.fail)
    ledgers.refresh(begun)
    ledgers.refresh(begun)  # the nudge came twice
    assert row(begun).attempts == 2
    assert row(begun).status == "failed"
    assert "died" in str(row(begun).error)


@pytest.mark.parametrize("trouble", ["data", "key", "weights", "numbers"])
def test_what_another_attempt_would_meet_again_ends_the_ledger(
    begun: UUID,
    recipe: Any,
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
    trouble: str,
) -> None:
    if trouble == "data":
        recipe.ids = recipe.ids[::-1]
    if trouble == "key":
        reread("LETHE_ID_KEY", "another-" + "c" * 32)
    if trouble == "weights":
        store().remove(stored)
    if trouble == "numbers":
        losses = recipe.losses
        monkeypatch.setattr(recipe, "losses", lambda *args: losses(*args) * float("inf"))
    ledgers.refresh(begun)
    names = {"key": "LETHE_ID_KEY", "weights": stored, "numbers": NotFinite.__name__}
    assert (row(begun).status, row(begun).attempts) == ("failed", 1)
    assert names.get(trouble, "register the model anew") in str(row(begun).error)


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


def test_a_removed_artifact_is_gone_and_nothing_else_is(tmp_path: Path) -> None:
    artifacts = ArtifactStore(tmp_path)
    gone, stays = (artifacts.put([content]).digest for content in (b"gone", b"stays"))
    for digest in (gone, gone, "sha256:" + "0" * 64, "../" + stays, stays.removeprefix("sha256:")):
        artifacts.remove(digest)
    assert artifacts.find(gone) is None
    assert artifacts.find(stays) is not None


def test_a_file_that_cannot_be_deleted_is_tried_again_and_holds_up_no_other(
    ready: UUID, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _twin(kept(ready).weights_digest)
    losses = recipe.losses
    with monkeypatch.context() as patch:  # for another sum, and so another file
        patch.setattr(recipe, "losses", lambda *args: 2 * losses(*args))
        ledgers.refresh(other)
    digest = kept(ready).digest
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == digest.removeprefix("sha256:"):
            raise OSError(30, "Read-only file system")
        real(path, missing_ok=missing_ok)

    for each in (ready, other):
        void(each)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StorageFailed, match="Read-only"):
            store().remove(digest)
        assert ledgers.remove_void() == 1
    assert (row(ready).digest, row(other).digest) == (digest, None)
    assert ledgers.remove_void() == 1
    assert store().find(digest) is None
