"""Read deletion requests back."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import pages
from app.errors import NotFound
from app.statuses import RequestStatus
from app.tables import DeletionRequest, Erasure, ModelVersion, RegisteredModel


@dataclass(frozen=True, slots=True)
class ErasureView:
    """An erasure with the names that its reader knows."""

    erasure: Erasure
    model: str
    version: ModelVersion | None


def get(session: Session, request_id: UUID, only_of: str | None = None) -> DeletionRequest:
    """Return one request; of this client alone, if one is named.

    Raises:
        NotFound: there is none of this id, or it is another client's.

    """
    request = session.get(DeletionRequest, request_id)
    if request is None or only_of not in (None, request.client):
        raise NotFound("No deletion request has this id.")
    return request


def browse(
    session: Session,
    status: RequestStatus | None,
    cursor: str | None,
    limit: int,
    only_of: str | None = None,
) -> pages.Page[DeletionRequest]:
    """Return a page of requests, newest first; of this client alone, if one is named."""
    statement: Select[tuple[DeletionRequest]] = select(DeletionRequest)
    if status is not None:
        statement = statement.where(DeletionRequest.status == status)
    if only_of is not None:
        statement = statement.where(DeletionRequest.client == only_of)
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
