"""Find what requests concern, and sum up where they stand from their erasures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Integer, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from app import lifecycle
from app.audit import ledger
from app.db import now
from app.deletions.registered import Registered
from app.deletions.review import hold_for
from app.deletions.samples import Held
from app.deletions.standing import FINISHED, status_of
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


def match(
    session: Session,
    requests: Collection[DeletionRequest],
    model_id: UUID | None = None,
    *,
    anew: bool = False,
) -> list[Erasure]:
    """Add an erasure for each ready model, or this one, that was trained on requested samples.

    None for requests that are held, rejected or withdrawn. ``anew`` says that some of them may
    have erasures already.
    """
    if model_id is not None:
        hold_for(session, model_id, requests)
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
            DeletionRequest.rejected_at.is_(None),
            or_(DeletionRequest.held_at.is_(None), DeletionRequest.approved_at.is_not(None)),
            or_(
                DeletionRequest.model_id.is_(None),
                DeletionRequest.model_id == ManifestEntry.model_id,
            ),
        )
        .group_by(RequestedSample.request_id, ManifestEntry.model_id)
    )
    if model_id is not None:
        held = held.where(ManifestEntry.model_id == model_id)
    if anew:
        held = held.where(
            ~exists().where(
                Erasure.request_id == RequestedSample.request_id,
                Erasure.model_id == ManifestEntry.model_id,
            )
        )
    found: dict[UUID, list[Held]] = {}
    for request_id, model, samples, remaining in session.execute(held):
        found.setdefault(request_id, []).append(Held(model, samples, remaining))
    return _add(session, by_id, found)


def erasures_for(request: DeletionRequest, held: Iterable[Held], at: datetime) -> list[Erasure]:
    """Return the erasures that are to be inserted for a request, by what models hold of it."""
    return [
        Erasure(
            id=uuid4(),
            request_id=request.id,
            model_id=one.model_id,
            sample_count=one.samples,
            due_at=request.due_at,
            created_at=at,
        )
        for one in held
        if request.model_id in (None, one.model_id)
    ]


def erasure_facts(erasure: Erasure) -> Mapping[str, object]:
    """Return what the log says of a new erasure."""
    return {
        "request": str(erasure.request_id),
        "model": str(erasure.model_id),
        "samples": erasure.sample_count,
    }


def _add(
    session: Session,
    by_id: Mapping[UUID, DeletionRequest],
    found: Mapping[UUID, Sequence[Held]],
) -> list[Erasure]:
    at = now()
    erasures = lifecycle.begin_missing(
        session,
        [each for id_, held in found.items() for each in erasures_for(by_id[id_], held, at)],
        (Erasure.request_id, Erasure.model_id),
        erasure_facts,
    )
    remaining = {(id_, one.model_id): one.remaining for id_, held in found.items() for one in held}
    forgotten = [e for e in erasures if not remaining[e.request_id, e.model_id]]
    paused = [e.id for e in erasures if by_id[e.request_id].paused_at is not None]
    lifecycle.move(
        session,
        Erasure,
        [id_ for id_ in paused if id_ not in {erasure.id for erasure in forgotten}],
        ErasureStatus.PAUSED,
    )
    complete_forgotten(session, forgotten)
    return erasures


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
    _bring(session, requests, statuses)


def settle_new(
    request: DeletionRequest, erasures: Collection[Erasure], checking: Iterable[Registered]
) -> list[ledger.Entry]:
    """Bring a request that is yet to be inserted to the status that its erasures add up to.

    Return the entry that goes with it, if it moved.
    """
    awaited = any(_may_hold(model.id, model.created_at, request) for model in checking)
    status = status_of(request, {erasure.status for erasure in erasures}, awaited)
    if status == request.status:
        return []
    if status not in FINISHED:
        return [lifecycle.moved(request, status, {})]
    request.finished_at = now()
    return [lifecycle.moved(request, status, _end(request, _outcome(request, [])))]


def _bring(
    session: Session, requests: Collection[DeletionRequest], statuses: Mapping[UUID, set[str]]
) -> None:
    awaited = _awaited(session, [request for request in requests if not statuses[request.id]])
    # Together by status: a batch holds a thousand requests, which would each take three statements.
    together: dict[RequestStatus, list[DeletionRequest]] = {}
    for request in requests:
        status = status_of(request, statuses[request.id], request.id in awaited)
        if status != request.status:
            together.setdefault(status, []).append(request)
    for status, alike in together.items():
        _move(session, alike, status)


def _move(session: Session, requests: Collection[DeletionRequest], to: RequestStatus) -> None:
    done = to in FINISHED
    facts = _outcomes(session, requests, to) if done else {}
    at = now()
    values: dict[str, object] = {"finished_at": at if done else None}
    if done and any(request.paused_at for request in requests):
        values |= ended_pause(at)
    moved = lifecycle.move(
        session,
        DeletionRequest,
        [request.id for request in requests],
        to,
        values=values,
        facts=lambda request: _end(request, facts[request.id]) if done else {},
    )
    if len(moved) < len(requests):
        raise IllegalMove(f"{len(requests) - len(moved)} requests cannot become {to}")


def ended_pause(at: datetime) -> dict[str, ColumnElement[Any] | None]:
    """Return what a request's columns become when its clock goes on, if it stood still."""
    request = DeletionRequest
    lasted = func.coalesce(at - request.paused_at, timedelta(0))
    return {
        "due_at": request.due_at + lasted,
        "paused_for": request.paused_for + lasted,
        "paused_at": None,
        "pause_ground": None,
    }


def is_awaited(session: Session, request: DeletionRequest) -> bool:
    """Tell whether a model may still turn out to hold what a request asks for."""
    return bool(_awaited(session, [request]))


def _awaited(session: Session, requests: Collection[DeletionRequest]) -> set[UUID]:
    if not requests:
        return set()
    checking = session.execute(
        select(RegisteredModel.id, RegisteredModel.created_at).where(
            RegisteredModel.status == ModelStatus.CHECKING
        )
    ).all()
    return {
        request.id
        for request in requests
        for model_id, created_at in checking
        if _may_hold(model_id, created_at, request)
    }


def _may_hold(model_id: UUID, created_at: datetime, request: DeletionRequest) -> bool:
    # A model registered after the request is not part of what it asked for.
    return created_at <= request.received_at and request.model_id in (None, model_id)


def _end(request: DeletionRequest, outcome: dict[str, object]) -> dict[str, object]:
    due = {"due_at": request.due_at.isoformat() if request.due_at else None}
    return {**outcome, **due, **({"reason": request.rejection} if request.rejection else {})}


def _outcomes(
    session: Session, requests: Collection[DeletionRequest], to: RequestStatus
) -> dict[UUID, dict[str, object]]:
    erasures: dict[UUID, list[dict[str, object]]] = {request.id: [] for request in requests}
    statement = (
        select(Erasure, ModelVersion)
        .outerjoin(ModelVersion, ModelVersion.id == Erasure.version_id)
        .where(Erasure.request_id.in_(erasures))
        .order_by(Erasure.model_id)
    )
    # It has none, so that there is nothing to look for.
    found = to != RequestStatus.NOTHING_FOUND
    for erasure, version in session.execute(statement) if found else ():
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
    return {request.id: _outcome(request, erasures[request.id]) for request in requests}


def _outcome(
    request: DeletionRequest, erasures: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    return {
        "regulation": request.regulation,
        "samples": request.sample_count,
        "received_at": request.received_at.isoformat(),
        "erasures": list(erasures),
    }
