"""Check registered models under a lease, and take in what the worker's check found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app import commitments, lifecycle
from app.commitments import Commitment
from app.db import lock, now
from app.deletions import settlement
from app.derived import ledgers, references
from app.errors import IllegalMove, LeaseLost
from app.statuses import ModelStatus, RequestStatus
from app.tables import (
    DeletionRequest,
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    RequestedSample,
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


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found out about a model that can be served."""

    sample_count: int
    data_fingerprint: str
    id_key_id: str
    size_bytes: int
    can_train: bool = False
    """Whether the recipe brings a ``train``, without which there are no references."""
    commitment: Commitment | None = None
    """To the samples; None to have it computed from the manifest."""


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
        .where(*_held_by(check))
        .values(check_lease_expires_at=None if lease is None else func.clock_timestamp() + lease)
        .returning(RegisteredModel.id)
    ).first()
    if held is None:
        raise LeaseLost(f"model {check.model_id}: attempt {check.attempt} lost its lease")


def replace_manifest(session: Session, check: ToCheck, sample_digests: Sequence[bytes]) -> None:
    """Store the digests of a model's training data, in place of what an earlier attempt left.

    Apart from ``accept``, so that millions of rows do not hold up the intake of requests: nobody
    is matched with the manifest of a model that is not ready.

    Raises:
        LeaseLost: another worker has the check.

    """
    lock(session, f"manifest/{check.model_id}")
    held = select(RegisteredModel.id).where(*_held_by(check))
    # Shared with the heartbeat, which renews the lease on this row meanwhile.
    if session.scalar(held.with_for_update(read=True, key_share=True)) is None:
        raise LeaseLost(f"model {check.model_id}: attempt {check.attempt} lost its lease")
    session.execute(delete(ManifestEntry).where(ManifestEntry.model_id == check.model_id))
    for start in range(0, len(sample_digests), CHUNK):
        chunk = list(sample_digests[start : start + CHUNK])
        digests = func.unnest(bindparam("digests", chunk, ARRAY(LargeBinary)))
        session.execute(
            insert(ManifestEntry).from_select(
                ["model_id", "sample_digest"], select(literal(check.model_id), digests)
            )
        )


def accept(session: Session, check: ToCheck, found: Found) -> ModelVersion:
    """Make a model ready: its first version, and what was asked while it was being checked.

    Raises:
        LeaseLost: another worker has the check.

    """
    lock(session, "registry")
    stored = select(func.count()).where(ManifestEntry.model_id == check.model_id)
    if session.scalar(stored) != found.sample_count:
        raise LeaseLost(f"model {check.model_id}: another attempt replaced the manifest")
    model = _end(
        session,
        check,
        ModelStatus.READY,
        {
            "data_fingerprint": found.data_fingerprint,
            "id_key_id": found.id_key_id,
            "sample_count": found.sample_count,
        },
        {"data_fingerprint": found.data_fingerprint, "samples": found.sample_count},
    )
    commitment = found.commitment or commitments.commit(commitments.read_manifest(model.id))
    version = lifecycle.begin(
        session,
        ModelVersion(
            model_id=model.id,
            number=1,
            digest=model.checkpoint_digest,
            size_bytes=found.size_bytes,
            commitment_root=commitment.root,
            retained_count=commitment.retained,
        ),
        {
            "model": str(model.id),
            "model_name": model.name,
            "number": 1,
            "digest": model.checkpoint_digest,
            "data_fingerprint": found.data_fingerprint,
            "id_key_id": found.id_key_id,
            "commitment": {"root": commitment.root.hex(), "retained": commitment.retained},
        },
    )
    model.current_version_id = version.id
    session.flush()
    policy = Policy.model_validate(model.policy)
    if "iau" in policy.ladder:
        ledgers.begin(session, model.id, version.id)
    if found.can_train:
        references.begin(session, model.id, version.id, policy.references.count)
    _look_back(session, model)
    return version


def reject(session: Session, check: ToCheck, problems: Sequence[Mapping[str, Any]]) -> None:
    """Record why a model cannot be served.

    Raises:
        LeaseLost: another worker has the check.

    """
    lock(session, "registry")
    model = _end(
        session,
        check,
        ModelStatus.REJECTED,
        {"problems": [dict(problem) for problem in problems]},
        {"problems": [problem["code"] for problem in problems]},
    )
    _look_back(session, model)


def unchecked(session: Session) -> list[UUID]:
    """Return the models that wait for a check and that nobody checks, oldest first."""
    return list(
        session.scalars(
            select(RegisteredModel.id).where(*_awaits_check()).order_by(RegisteredModel.created_at)
        )
    )


def _held_by(check: ToCheck) -> tuple[ColumnElement[bool], ...]:
    return (
        RegisteredModel.id == check.model_id,
        RegisteredModel.status == ModelStatus.CHECKING,
        RegisteredModel.check_attempts == check.attempt,
    )


def _end(
    session: Session,
    check: ToCheck,
    to: ModelStatus,
    values: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> RegisteredModel:
    try:
        return lifecycle.move_one(
            session,
            RegisteredModel,
            check.model_id,
            to,
            *_held_by(check),
            values={**values, "checked_at": now(), "check_lease_expires_at": None},
            facts={"attempt": check.attempt, **facts},
        )
    except IllegalMove as error:
        raise LeaseLost(f"model {check.model_id}: attempt {check.attempt} is void") from error


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
        DeletionRequest.cancelled_at.is_(None),
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
