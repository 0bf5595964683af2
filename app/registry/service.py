"""Register models, and answer which versions there are and which one is current."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import (
    Select,
    select,
)
from sqlalchemy.orm import Session

from app import lifecycle, pages
from app.db import clock, lock
from app.errors import NameTaken, NoCurrentVersion, NotFound
from app.statuses import ModelStatus
from app.tables import ModelVersion, RegisteredModel
from lethe.policy import Policy


def register(
    session: Session, name: str, recipe: str, checkpoint_digest: str, policy: Policy
) -> RegisteredModel:
    """Store a model that a worker is to check.

    Raises:
        NameTaken: another model has this name.

    """
    lock(session, "registry")
    if session.scalar(select(RegisteredModel.id).where(RegisteredModel.name == name)):
        raise NameTaken("Choose another name; a model keeps its name through all its versions.")
    return lifecycle.begin(
        session,
        RegisteredModel(
            name=name,
            recipe=recipe,
            checkpoint_digest=checkpoint_digest,
            policy=policy.model_dump(mode="json"),
            created_at=clock(session),
        ),
        {"name": name, "recipe": recipe, "checkpoint": checkpoint_digest},
    )


def get(session: Session, name: str) -> RegisteredModel:
    """Return one model by its name.

    Raises:
        NotFound: there is none.

    """
    model = session.scalars(select(RegisteredModel).where(RegisteredModel.name == name)).first()
    if model is None:
        raise NotFound("No model has this name.")
    return model


def browse(
    session: Session, status: ModelStatus | None, cursor: str | None, limit: int
) -> pages.Page[RegisteredModel]:
    """Return a page of models, newest first."""
    statement: Select[tuple[RegisteredModel]] = select(RegisteredModel)
    if status is not None:
        statement = statement.where(RegisteredModel.status == status)
    at = RegisteredModel.created_at
    return pages.newest_first(
        session, statement, at.expression, RegisteredModel.id.expression, cursor, limit
    )


def versions(
    session: Session, model: RegisteredModel, after: int, limit: int
) -> list[ModelVersion]:
    """Return versions of a model with numbers above one, oldest first."""
    return list(
        session.scalars(
            select(ModelVersion)
            .where(ModelVersion.model_id == model.id, ModelVersion.number > after)
            .order_by(ModelVersion.number)
            .limit(limit)
        )
    )


def version(session: Session, model: RegisteredModel, number: int) -> ModelVersion:
    """Return one version of a model.

    Raises:
        NotFound: the model has no version of this number.

    """
    found = session.scalars(
        select(ModelVersion).where(ModelVersion.model_id == model.id, ModelVersion.number == number)
    ).first()
    if found is None:
        raise NotFound("The model has no version of this number.")
    return found


def current(session: Session, model: RegisteredModel) -> ModelVersion:
    """Return a model's current version.

    Raises:
        NoCurrentVersion: it is still being checked, or was rejected.

    """
    if model.current_version_id is None:
        raise NoCurrentVersion(f"The model is {model.status}; see its `problems`, or ask again.")
    return session.get_one(ModelVersion, model.current_version_id)


def lineage(session: Session, found: ModelVersion) -> list[ModelVersion]:
    """Return a version's parent, if it has one, and the version."""
    if found.parent_id is None:
        return [found]
    return [session.get_one(ModelVersion, found.parent_id), found]


def current_versions(
    session: Session, models: Sequence[RegisteredModel]
) -> dict[UUID, ModelVersion]:
    """Return the current version of each model that has one."""
    ids = [model.current_version_id for model in models if model.current_version_id is not None]
    rows = session.scalars(select(ModelVersion).where(ModelVersion.id.in_(ids)))
    return {row.model_id: row for row in rows}
