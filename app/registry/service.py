"""Register models, take in what the worker's check found, and answer which version is current."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app import lifecycle, pages
from app.db import clock, lock, now
from app.deletions import settlement
from app.errors import LeaseLost, NameTaken, NoCurrentVersion, NotFound
from app.tables import (
    DeletionRequest,
    Erasure,
    ManifestEntry,
    ModelStatus,
    ModelVersion,
    RegisteredModel,
    RequestedSample,
    RequestStatus,
)
from lethe.policy import Policy

# Digests in one statement: bounds the memory of an intake of millions.
CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class ToCheck:
    """What the worker needs to check a model."""

    model_id: UUID
    recipe: str
    checkpoint_digest: str
    attempt: int


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


def start_check(session: Session, model_id: UUID, lease: timedelta) -> ToCheck | None:
    """Take the check of a model for one lease; None if there is nothing to check or to take."""
    row = session.scalars(
        update(RegisteredModel)
        .where(RegisteredModel.id == model_id, *_awaits_check())
        .values(
            check_attempts=RegisteredModel.check_attempts + 1,
            check_lease_expires_at=func.clock_timestamp() + lease,
        )
        .returning(RegisteredModel)
    ).first()
    if row is None:
        return None
    return ToCheck(row.id, row.recipe, row.checkpoint_digest, row.check_attempts)


def renew_check(session: Session, check: ToCheck, lease: timedelta | None) -> None:
    """Hold a check for another lease, or give it back with None.

    Raises:
        LeaseLost: another worker has it.

    """
    held = session.execute(
        update(RegisteredModel)
        .where(
            RegisteredModel.id == check.model_id,
            RegisteredModel.status == ModelStatus.CHECKING,
            RegisteredModel.check_attempts == check.attempt,
        )
        .values(check_lease_expires_at=None if lease is None else func.clock_timestamp() + lease)
        .returning(RegisteredModel.id)
    ).first()
    if held is None:
        raise LeaseLost(f"model {check.model_id}: attempt {check.attempt} lost its lease")


def accept(
    session: Session,
    model_id: UUID,
    sample_digests: Sequence[bytes],
    data_fingerprint: str,
    id_key_id: str,
    size_bytes: int,
) -> ModelVersion:
    """Make a model ready: its manifest, its first version, and what was asked meanwhile.

    Raises:
        IllegalMove: the model is not being checked; another worker was faster.

    """
    lock(session, "registry")
    model = lifecycle.move_one(
        session,
        RegisteredModel,
        model_id,
        ModelStatus.READY,
        values={
            "checked_at": now(),
            "data_fingerprint": data_fingerprint,
            "id_key_id": id_key_id,
            "sample_count": len(sample_digests),
        },
        facts={"data_fingerprint": data_fingerprint, "samples": len(sample_digests)},
    )
    for start in range(0, len(sample_digests), CHUNK):
        chunk = list(sample_digests[start : start + CHUNK])
        digests = func.unnest(bindparam("digests", chunk, ARRAY(LargeBinary)))
        session.execute(
            insert(ManifestEntry).from_select(
                ["model_id", "sample_digest"], select(literal(model_id), digests)
            )
        )
    version = lifecycle.begin(
        session,
        ModelVersion(
            model_id=model_id, number=1, digest=model.checkpoint_digest, size_bytes=size_bytes
        ),
        {"model": str(model_id), "number": 1, "digest": model.checkpoint_digest},
    )
    session.execute(
        update(RegisteredModel)
        .where(RegisteredModel.id == model_id)
        .values(current_version_id=version.id)
    )
    session.refresh(model)
    _look_back(session, model)
    return version


def reject(session: Session, model_id: UUID, problems: Sequence[Mapping[str, Any]]) -> None:
    """Record why a model cannot be served.

    Raises:
        IllegalMove: the model is not being checked; another worker was faster.

    """
    lock(session, "registry")
    model = lifecycle.move_one(
        session,
        RegisteredModel,
        model_id,
        ModelStatus.REJECTED,
        values={"checked_at": now(), "problems": [dict(problem) for problem in problems]},
        facts={"problems": [problem["code"] for problem in problems]},
    )
    _look_back(session, model)


def unchecked(session: Session) -> list[UUID]:
    """Return the models that wait for a check and that nobody checks, oldest first."""
    return list(
        session.scalars(
            select(RegisteredModel.id).where(*_awaits_check()).order_by(RegisteredModel.created_at)
        )
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


def versions(session: Session, model: RegisteredModel) -> list[ModelVersion]:
    """Return a model's versions, oldest first."""
    return list(
        session.scalars(
            select(ModelVersion)
            .where(ModelVersion.model_id == model.id)
            .order_by(ModelVersion.number)
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


def _awaits_check() -> tuple[ColumnElement[bool], ...]:
    expires_at = RegisteredModel.check_lease_expires_at
    return (
        RegisteredModel.status == ModelStatus.CHECKING,
        or_(expires_at.is_(None), expires_at < func.clock_timestamp()),
    )


def _look_back(session: Session, model: RegisteredModel) -> None:
    # Requests that came while the model was being checked could not be matched with it.
    limited_to_it = or_(DeletionRequest.model_id.is_(None), DeletionRequest.model_id == model.id)
    since = select(DeletionRequest).where(
        DeletionRequest.received_at >= model.created_at,
        limited_to_it,
        DeletionRequest.status.not_in([RequestStatus.CANCELLED, RequestStatus.REJECTED]),
    )
    if model.status == ModelStatus.READY:
        holds = (
            select(RequestedSample.request_id)
            .join(ManifestEntry, ManifestEntry.sample_digest == RequestedSample.sample_digest)
            .where(ManifestEntry.model_id == model.id)
        )
        matched = session.scalars(since.where(DeletionRequest.id.in_(holds))).all()
        settlement.match(session, matched, model.id)
        settlement.settle(session, [request.id for request in matched])
    waiting = session.scalars(
        since.where(
            DeletionRequest.status == RequestStatus.PENDING,
            ~select(Erasure.id).where(Erasure.request_id == DeletionRequest.id).exists(),
        )
    ).all()
    settlement.settle(session, [request.id for request in waiting])
