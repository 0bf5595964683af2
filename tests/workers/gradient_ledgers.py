"""What tests do to gradient ledgers, as workers and publications do, and what they look up."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update

from app.artifacts import ArtifactStore
from app.db import transaction
from app.derived import ledgers as rows
from app.settings import settings
from app.tables import GradientLedger, ManifestEntry, RegisteredModel
from workers import ledgers
from workers.recipes import recipe_fingerprint
from workers.unlearning.ledger import GradientSum


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
