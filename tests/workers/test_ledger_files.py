"""The file of a gradient ledger goes with it, whoever died on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from app.artifacts import ArtifactStore
from app.db import transaction
from app.derived import ledgers as rows
from app.errors import StorageFailed
from app.registry import service as registry
from app.retention import purging
from app.tables import AuditEntry, ModelVersion
from lethe.policy import Policy, References
from tests.workers.gradient_ledgers import Killed, begin, die, files, kept, load, row, store, void
from workers import check, ledgers, run
from workers.unlearning.errors import StaleLedger

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


def _twin(checkpoint: str) -> UUID:
    """Serve the same checkpoint as a second model, and return the ledger of its version."""
    policy = Policy(ladder=("retrain",), references=References(count=0))
    with transaction() as session:
        twin = registry.register(session, "twin", "tiny", checkpoint, policy).id
    check.check(twin)
    return begin(twin)


@pytest.fixture
def begun(serve: Callable[..., UUID]) -> UUID:
    """The ledger, not yet computed, of a served model's first version."""
    return begin(serve())


@pytest.fixture
def ready(begun: UUID) -> UUID:
    """The same, computed."""
    ledgers.refresh(begun)
    return begun


def test_what_is_forgotten_leaves_with_the_file_of_the_parents_ledger(
    ready: UUID, job_for: Callable[..., UUID], recipe: Any
) -> None:
    old = kept(ready)
    run.run(job_for(*FORGOTTEN))
    assert row(ready).status == "void"
    with pytest.raises(StaleLedger, match="data"):
        load(ready, recipe, kept=old)
    # For audits of the job, and no longer than the weights that it began from.
    assert ledgers.remove_void() == 0
    assert store().find(old.digest) is not None
    with transaction() as session:
        session.execute(update(ModelVersion).values(withdrawn_at=text("now() - interval '1 year'")))
    assert purging.purge_due(store()) == 1
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
