"""Find what requests concern, and sum up where they stand from their erasures."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Integer, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.errors import IllegalMove
from app.statuses import ErasureStatus, ModelStatus, RequestStatus
from app.tables import (
    DeletionRequest,
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    RequestedSample,
)

FINISHED = (RequestStatus.COMPLETED, RequestStatus.NOTHING_FOUND, RequestStatus.CANCELLED)


def match(
    session: Session, requests: Collection[DeletionRequest], model_id: UUID | None = None
) -> None:
    """Add an erasure for each ready model, or this one, that was trained on requested samples."""
    by_id = {request.id: request for request in requests}
    held = (
        select(
            RequestedSample.request_id,
            ManifestEntry.model_id,
            func.count(),
            func.sum(cast(ManifestEntry.forgotten_by_job_id.is_(None), Integer)),
        )
        .join(ManifestEntry, ManifestEntry.sample_digest == RequestedSample.sample_digest)
        .join(RegisteredModel, RegisteredModel.id == ManifestEntry.model_id)
        .join(DeletionRequest, DeletionRequest.id == RequestedSample.request_id)
        .where(
            RequestedSample.request_id.in_(by_id),
            RegisteredModel.status == ModelStatus.READY,
            DeletionRequest.cancelled_at.is_(None),
            or_(
                DeletionRequest.model_id.is_(None),
                DeletionRequest.model_id == ManifestEntry.model_id,
            ),
        )
        .group_by(RequestedSample.request_id, ManifestEntry.model_id)
    )
    if model_id is not None:
        held = held.where(ManifestEntry.model_id == model_id)
    found = session.execute(held).all()
    erasures = [
        Erasure(
            request_id=request_id,
            model_id=model,
            sample_count=count,
            due_at=by_id[request_id].due_at,
        )
        for request_id, model, count, _ in found
    ]
    lifecycle.begin_all(
        session,
        erasures,
        lambda e: {
            "request": str(e.request_id),
            "model": str(e.model_id),
            "samples": e.sample_count,
        },
    )
    complete_forgotten(
        session, [erasure for erasure, row in zip(erasures, found, strict=True) if not row[3]]
    )


def complete_forgotten(session: Session, erasures: Collection[Erasure]) -> None:
    """Complete erasures whose samples earlier jobs forgot: the current version is without them."""
    for model_id in sorted({erasure.model_id for erasure in erasures}):
        version = session.scalars(
            select(ModelVersion)
            .join(RegisteredModel, RegisteredModel.current_version_id == ModelVersion.id)
            .where(RegisteredModel.id == model_id)
        ).one()
        lifecycle.move(
            session,
            Erasure,
            [erasure.id for erasure in erasures if erasure.model_id == model_id],
            ErasureStatus.COMPLETED,
            values={"version_id": version.id, "finished_at": now()},
            facts={"version": version.number, "digest": version.digest, "forgotten_before": True},
        )


def settle(session: Session, request_ids: Collection[UUID]) -> None:
    """Bring requests to the status that their erasures add up to."""
    requests = session.scalars(
        select(DeletionRequest)
        .where(DeletionRequest.id.in_(request_ids))
        # In one order, so that two transactions that settle the same requests wait, not deadlock.
        .order_by(DeletionRequest.id)
        # Not their keys: new erasures refer to these, and need not wait.
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    statuses: dict[UUID, set[str]] = {request.id: set() for request in requests}
    rows = select(Erasure.request_id, Erasure.status).where(Erasure.request_id.in_(statuses))
    for request_id, status in session.execute(rows):
        statuses[request_id].add(status)
    # Together by status: a batch holds a thousand requests, which would each take three statements.
    together: dict[RequestStatus, list[DeletionRequest]] = {}
    for request in requests:
        status = _sum_up(statuses[request.id]) or _without_erasures(session, request)
        if status != request.status:
            together.setdefault(status, []).append(request)
    for status, alike in together.items():
        _move(session, alike, status)


def _move(session: Session, requests: Collection[DeletionRequest], to: RequestStatus) -> None:
    done = to in FINISHED
    facts = _outcomes(session, requests) if done else {}
    moved = lifecycle.move(
        session,
        DeletionRequest,
        [request.id for request in requests],
        to,
        values={"finished_at": now() if done else None},
        facts=lambda request: facts.get(request.id, {}),
    )
    if len(moved) < len(requests):
        raise IllegalMove(f"{len(requests) - len(moved)} requests cannot become {to}")


def _sum_up(erasures: set[str]) -> RequestStatus | None:
    if not erasures:
        return None
    if ErasureStatus.NEEDS_ATTENTION in erasures:
        return RequestStatus.NEEDS_ATTENTION
    for status in (ErasureStatus.COMPLETED, ErasureStatus.CANCELLED, ErasureStatus.REJECTED):
        if erasures == {status}:
            return RequestStatus(status.value)
    begun = {ErasureStatus.SCHEDULED, ErasureStatus.COMPLETED}
    if not erasures & {ErasureStatus.SCHEDULED, ErasureStatus.PENDING}:
        return RequestStatus.COMPLETED  # some completed, the rest cancelled or rejected
    return RequestStatus.IN_PROGRESS if erasures & begun else RequestStatus.PENDING


def _without_erasures(session: Session, request: DeletionRequest) -> RequestStatus:
    if request.cancelled_at is not None:
        return RequestStatus.CANCELLED
    return RequestStatus.PENDING if is_awaited(session, request) else RequestStatus.NOTHING_FOUND


def is_awaited(session: Session, request: DeletionRequest) -> bool:
    """Tell whether a model may still turn out to hold what a request asks for."""
    # A model registered after the request is not part of what it asked for.
    checking = exists().where(
        RegisteredModel.status == ModelStatus.CHECKING,
        RegisteredModel.created_at <= request.received_at,
    )
    if request.model_id is not None:
        checking = checking.where(RegisteredModel.id == request.model_id)
    return bool(session.scalar(select(checking)))


def _outcomes(
    session: Session, requests: Collection[DeletionRequest]
) -> dict[UUID, dict[str, object]]:
    erasures: dict[UUID, list[dict[str, object]]] = {request.id: [] for request in requests}
    rows = session.execute(
        select(Erasure, ModelVersion)
        .outerjoin(ModelVersion, ModelVersion.id == Erasure.version_id)
        .where(Erasure.request_id.in_(erasures))
        .order_by(Erasure.model_id)
    )
    for erasure, version in rows:
        erasures[erasure.request_id].append(
            {
                "model": str(erasure.model_id),
                "samples": erasure.sample_count,
                "status": erasure.status,
                "job": str(erasure.job_id) if erasure.job_id else None,
                "version": version.number if version else None,
                "digest": version.digest if version else None,
                "guarantee": version.guarantee if version else None,
            }
        )
    return {
        request.id: {
            "regulation": request.regulation,
            "samples": request.sample_count,
            "received_at": request.received_at.isoformat(),
            "erasures": erasures[request.id],
        }
        for request in requests
    }
