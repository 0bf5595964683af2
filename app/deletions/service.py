"""Read deletion requests back."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Uuid,
    any_,
    bindparam,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Session

from app import pages
from app.errors import NotFound
from app.statuses import RequestStatus
from app.tables import DeletionRequest, Erasure, ModelVersion, RegisteredModel

# As the index of deadlines has it.
_IS_OPEN = DeletionRequest.finished_at.is_(None)


class Order(StrEnum):
    """In which order requests are listed."""

    RECEIVED = "received"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests to list; what is not given does not count."""

    statuses: Sequence[RequestStatus] = ()
    model: str | None = None
    client: str | None = None
    regulation: str | None = None
    reference: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    due_before: datetime | None = None
    overdue: bool = False
    order: Order = Order.RECEIVED


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
    wanted: Filter,
    cursor: str | None,
    limit: int,
    only_of: str | None = None,
) -> pages.Page[DeletionRequest]:
    """Return a page of the requests that a filter lets through; of this client alone, if named.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page in this order gave.

    """
    statement = _filtered(wanted)
    if only_of is not None:
        statement = statement.where(DeletionRequest.client == only_of)
    id_ = DeletionRequest.id.expression
    if wanted.order == Order.DUE:
        return pages.nearest_first(
            session,
            statement.where(_IS_OPEN),
            DeletionRequest.due_at.expression,
            id_,
            cursor,
            limit,
        )
    at = DeletionRequest.received_at.expression
    return pages.newest_first(session, statement, at, id_, cursor, limit)


def _filtered(wanted: Filter) -> Select[tuple[DeletionRequest]]:
    row = DeletionRequest
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        conditions.append(row.status.in_(wanted.statuses))
    if wanted.model is not None:
        conditions.append(_concerns(wanted.model))
    for column, value in (
        (row.client, wanted.client),
        (row.regulation, wanted.regulation),
        (row.reference, wanted.reference),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.received_from is not None:
        conditions.append(row.received_at >= wanted.received_from)
    if wanted.received_to is not None:
        conditions.append(row.received_at < wanted.received_to)
    if wanted.due_before is not None:
        conditions += [_IS_OPEN, row.due_at < wanted.due_before]
    if wanted.overdue:
        # A clock that stands still runs out for nobody.
        late = row.due_at < func.now()
        conditions += [_IS_OPEN, late, row.paused_at.is_(None)]
    statement: Select[tuple[DeletionRequest]] = select(DeletionRequest)
    return statement.where(*conditions)


def _concerns(model: str) -> ColumnElement[bool]:
    named = select(RegisteredModel.id).where(RegisteredModel.name == model).scalar_subquery()
    in_it = exists().where(Erasure.request_id == DeletionRequest.id, Erasure.model_id == named)
    return or_(DeletionRequest.model_id == named, in_it)


def erasures_of(session: Session, request_ids: Collection[UUID]) -> dict[UUID, list[ErasureView]]:
    """Return the erasures of each request, in the order of the models' names."""
    views: dict[UUID, list[ErasureView]] = {request_id: [] for request_id in request_ids}
    rows = session.execute(_erasures(), {"requests": list(request_ids)})
    for erasure, name, version in rows:
        views[erasure.request_id].append(ErasureView(erasure, name, version))
    return views


@cache
def _erasures() -> Select[Erasure, str, ModelVersion]:
    # Each poll asks this; to make the statement takes longer than to answer it.
    return (
        select(Erasure, RegisteredModel.name, ModelVersion)
        .join(RegisteredModel, RegisteredModel.id == Erasure.model_id)
        .outerjoin(ModelVersion, ModelVersion.id == Erasure.version_id)
        .where(Erasure.request_id == any_(bindparam("requests", type_=ARRAY(Uuid))))
        .order_by(RegisteredModel.name)
    )


def model_names(session: Session, ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the names of models."""
    if not ids:
        return {}
    rows = select(RegisteredModel.id, RegisteredModel.name).where(RegisteredModel.id.in_(ids))
    return dict(session.execute(rows).all())
