"""Take deletion requests in and read them back."""

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import LargeBinary, Select, bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app import lifecycle, pages
from app.db import clock, lock
from app.deletions.clocks import Regulation, due_at
from app.deletions.settlement import match, settle
from app.errors import Conflict, IdempotencyKeyReused, NotFound, UnknownModel
from app.privacy import digest_for, digest_sample_id, key_id
from app.settings import settings
from app.statuses import ModelStatus, RequestStatus
from app.tables import DeletionRequest, Erasure, ModelVersion, RegisteredModel, RequestedSample
from lethe.verify.commitment import samples_commitment

SALT_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """What a client asks for. The only place outside a Recipe where sample IDs are plain."""

    sample_ids: Sequence[str]
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Intake:
    """A submission as it may be stored: every sample ID replaced by its keyed digest."""

    sample_digests: Sequence[bytes]
    body_digest: bytes
    id_key_id: str
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ErasureView:
    """An erasure with the names that its reader knows."""

    erasure: Erasure
    model: str
    version: ModelVersion | None


def take_in(submission: Submission, id_key: bytes) -> Intake:
    """Replace the sample IDs by keyed digests; nothing after this sees an ID."""
    digests = sorted({digest_sample_id(id_key, id_) for id_ in submission.sample_ids})
    body = json.dumps(
        [
            [digest.hex() for digest in digests],
            submission.model,
            submission.regulation,
            submission.reference,
            submission.reason,
        ]
    )
    return Intake(
        sample_digests=digests,
        body_digest=digest_for(id_key, "body", body.encode()),
        id_key_id=key_id(id_key),
        model=submission.model,
        regulation=submission.regulation,
        reference=submission.reference,
        reason=submission.reason,
    )


def submit(
    session: Session, client: str, intake: Intake, idempotency_key_digest: bytes | None
) -> tuple[DeletionRequest, bool]:
    """Store the promise and what it concerns; tell whether it is new or a repetition.

    Raises:
        IdempotencyKeyReused: the key came before, with another body.
        UnknownModel: the request names a model that is not registered.
        Conflict: it names one that was rejected.

    """
    if idempotency_key_digest is not None:
        lock(session, f"idempotency/{client}/{idempotency_key_digest.hex()}")
        earlier = session.scalars(
            select(DeletionRequest).where(
                DeletionRequest.client == client,
                DeletionRequest.idempotency_key_digest == idempotency_key_digest,
            )
        ).first()
        if earlier is not None:
            if earlier.body_digest != intake.body_digest:
                raise IdempotencyKeyReused(
                    "This Idempotency-Key came with another body before; use a new key."
                )
            return earlier, False
    # A model that becomes ready looks back at the requests that came during its check: this
    # lock makes sure that each request is either seen by it or sees its manifest.
    lock(session, "registry", shared=True)
    model_id = None if intake.model is None else _model_id(session, intake.model)
    received_at = clock(session)
    due = due_at(intake.regulation, received_at, settings().time_zone)
    salt = secrets.token_bytes(SALT_BYTES)
    request = lifecycle.begin(
        session,
        DeletionRequest(
            client=client,
            idempotency_key_digest=idempotency_key_digest,
            body_digest=intake.body_digest,
            model_id=model_id,
            regulation=intake.regulation,
            reference=intake.reference,
            reason=intake.reason,
            sample_count=len(intake.sample_digests),
            samples_salt=salt,
            id_key_id=intake.id_key_id,
            received_at=received_at,
            due_at=due,
        ),
        {
            "regulation": intake.regulation,
            "samples": len(intake.sample_digests),
            "samples_commitment": samples_commitment(salt, intake.sample_digests).hex(),
            "received_at": received_at.isoformat(),
            "due_at": due.isoformat() if due else None,
        },
    )
    digests = bindparam("digests", list(intake.sample_digests), ARRAY(LargeBinary))
    session.execute(
        insert(RequestedSample).from_select(
            ["request_id", "sample_digest"], select(literal(request.id), func.unnest(digests))
        )
    )
    match(session, [request])
    settle(session, [request.id])
    return request, True


def get(session: Session, request_id: UUID) -> DeletionRequest:
    """Return one request.

    Raises:
        NotFound: there is none of this id.

    """
    request = session.get(DeletionRequest, request_id)
    if request is None:
        raise NotFound("No deletion request has this id.")
    return request


def browse(
    session: Session, status: RequestStatus | None, cursor: str | None, limit: int
) -> pages.Page[DeletionRequest]:
    """Return a page of requests, newest first."""
    statement: Select[tuple[DeletionRequest]] = select(DeletionRequest)
    if status is not None:
        statement = statement.where(DeletionRequest.status == status)
    at = DeletionRequest.received_at
    return pages.newest_first(
        session, statement, at.expression, DeletionRequest.id.expression, cursor, limit
    )


def erasures_of(session: Session, request_ids: Collection[UUID]) -> dict[UUID, list[ErasureView]]:
    """Return the erasures of each request, in the order of the models' names."""
    views: dict[UUID, list[ErasureView]] = {request_id: [] for request_id in request_ids}
    rows = session.execute(
        select(Erasure, RegisteredModel.name, ModelVersion)
        .join(RegisteredModel, RegisteredModel.id == Erasure.model_id)
        .outerjoin(ModelVersion, ModelVersion.id == Erasure.version_id)
        .where(Erasure.request_id.in_(request_ids))
        .order_by(RegisteredModel.name)
    )
    for erasure, name, version in rows:
        views[erasure.request_id].append(ErasureView(erasure, name, version))
    return views


def model_names(session: Session, ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the names of models."""
    rows = select(RegisteredModel.id, RegisteredModel.name).where(RegisteredModel.id.in_(ids))
    return dict(session.execute(rows).all())


def _model_id(session: Session, name: str) -> UUID:
    model = session.scalars(select(RegisteredModel).where(RegisteredModel.name == name)).first()
    if model is None:
        raise UnknownModel("Register the model first, or leave `model` out to reach every model.")
    if model.status == ModelStatus.REJECTED:
        raise Conflict("The model's registration was rejected; it holds no samples.")
    return model.id
