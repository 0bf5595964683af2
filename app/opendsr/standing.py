"""Where a request stands, in the words of OpenDSR; the same for answers and for callbacks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from app.opendsr.signing import domain_of
from app.statuses import ErasureStatus, RequestStatus
from app.tables import (
    DeletionRequest,
    Erasure,
    ManifestEntry,
    RequestedSample,
    SubjectRequest,
    SubjectRequestStatus,
)
from app.webhooks import outbox

# OpenDSR has no refusal. Of its words, `cancelled` is the true one: it ended, and nothing was
# fulfilled. Which end it was stands beside it, among this processor's own members.
STATUSES: Mapping[str, SubjectRequestStatus] = MappingProxyType(
    {
        RequestStatus.PENDING: SubjectRequestStatus.PENDING,
        RequestStatus.HELD: SubjectRequestStatus.PENDING,
        RequestStatus.IN_PROGRESS: SubjectRequestStatus.IN_PROGRESS,
        RequestStatus.NEEDS_ATTENTION: SubjectRequestStatus.IN_PROGRESS,
        RequestStatus.COMPLETED: SubjectRequestStatus.COMPLETED,
        RequestStatus.NOTHING_FOUND: SubjectRequestStatus.COMPLETED,
        RequestStatus.CANCELLED: SubjectRequestStatus.CANCELLED,
        RequestStatus.REJECTED: SubjectRequestStatus.CANCELLED,
    }
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A subject request, the deletion request that it became, and what was found for it."""

    subject: SubjectRequest
    request: DeletionRequest
    found: int | None
    """How many of its samples some model held; None while that is not settled."""


def status_of(request: DeletionRequest) -> SubjectRequestStatus:
    """Return what OpenDSR calls the status of a request."""
    return STATUSES[request.status]


def standings(
    session: Session, subjects: Collection[SubjectRequest], requests: Collection[DeletionRequest]
) -> list[Standing]:
    """Return where subject requests stand, in their order; the requests are theirs."""
    by_id = {request.id: request for request in requests}
    found = _found(
        session,
        [
            subject.deletion_request_id
            for subject in subjects
            if status_of(by_id[subject.deletion_request_id]) is SubjectRequestStatus.COMPLETED
        ],
    )
    return [
        Standing(
            subject, by_id[subject.deletion_request_id], found.get(subject.deletion_request_id)
        )
        for subject in subjects
    ]


def tell(standing: Standing) -> dict[str, Any]:
    """Return what an answer and a callback both say of a request, as JSON has it."""
    subject, request = standing.subject, standing.request
    own = {"deletion_request": str(request.id), "status": request.status}
    if request.status == RequestStatus.REJECTED and request.rejection is not None:
        own["reason"] = request.rejection
    told: dict[str, Any] = {
        "controller_id": subject.client,
        "expected_completion_time": outbox.iso(completion(request)),
        "subject_request_id": str(subject.subject_request_id),
        "request_status": status_of(request).value,
        "extensions": {domain_of(subject.origin): own},
    }
    if request.finished_at is not None:
        told["results_url"] = f"{subject.origin}/v1/deletion-requests/{request.id}/receipt"
    if standing.found is not None:
        told["results_count"] = standing.found
    return told


def completion(request: DeletionRequest) -> datetime:
    """Return when a request is expected to be fulfilled: by its deadline, until it is over."""
    return request.finished_at or request.due_at or request.received_at


def _found(session: Session, request_ids: Collection[UUID]) -> dict[UUID, int]:
    if not request_ids:
        return {}
    rows = session.execute(
        select(RequestedSample.request_id, func.count(distinct(RequestedSample.sample_digest)))
        .join(Erasure, Erasure.request_id == RequestedSample.request_id)
        .join(
            ManifestEntry,
            (ManifestEntry.model_id == Erasure.model_id)
            & (ManifestEntry.sample_digest == RequestedSample.sample_digest),
        )
        .where(
            RequestedSample.request_id.in_(request_ids),
            Erasure.status == ErasureStatus.COMPLETED,
        )
        .group_by(RequestedSample.request_id)
    )
    # A request without a row is one for which nothing was found.
    return {**dict.fromkeys(request_ids, 0), **dict(rows.all())}
