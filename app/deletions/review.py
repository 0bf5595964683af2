"""Which requests wait for somebody's approval before anything is done about them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import ARRAY, LargeBinary, Uuid, bindparam, func, or_, select
from sqlalchemy.orm import Session

from app.db import now
from app.settings import settings
from app.statuses import ModelStatus
from app.tables import DeletionRequest, ManifestEntry, RegisteredModel
from lethe.policy import Review


@dataclass(frozen=True, slots=True, repr=False)
class Sought:
    """What a new request concerns."""

    request_id: UUID
    model: RegisteredModel | None
    """The one that it is limited to."""
    sample_digests: Sequence[bytes]


def to_hold(session: Session, new: Collection[Sought]) -> set[UUID]:
    """Return those of new requests that the service holds, or a model that they concern."""
    if settings().review == "manual":
        return {each.request_id for each in new}
    held: set[UUID] = set()
    open_: list[Sought] = []
    for each in new:
        if each.model is None:
            open_.append(each)
        elif _review_of(each.model).holds(len(each.sample_digests)):
            held.add(each.request_id)
    if not open_:
        return held
    reviewing = _reviewing(session)
    doubtful = [
        each
        for each in open_
        if any(review.holds(len(each.sample_digests)) for review in reviewing.values())
    ]
    if not doubtful:
        return held
    counts = {each.request_id: len(each.sample_digests) for each in doubtful}
    return held | {
        request_id
        for request_id, model_id in _concerned(session, doubtful, reviewing)
        if reviewing[model_id].holds(counts[request_id])
    }


def hold_for(session: Session, model_id: UUID, requests: Collection[DeletionRequest]) -> None:
    """Hold the requests that a model would add to which has just become ready, if it reviews.

    What other models were asked for goes on.
    """
    review = _review_of(session.get_one(RegisteredModel, model_id))
    for request in requests:
        if request.approved_at is None and request.held_at is None and not _ended(request):
            request.held_at = now() if review.holds(request.sample_count) else None
    session.flush()


def is_held(request: DeletionRequest) -> bool:
    """Tell whether a request waits for an approval."""
    return request.held_at is not None and request.approved_at is None and not _ended(request)


def _ended(request: DeletionRequest) -> bool:
    return request.rejected_at is not None or request.cancelled_at is not None


def _reviewing(session: Session) -> Mapping[UUID, Review]:
    review = RegisteredModel.policy["review"]
    rows = session.execute(
        select(RegisteredModel.id, review).where(
            RegisteredModel.status == ModelStatus.READY,
            or_(
                review["approval"].astext == "manual",
                review["hold_above"].astext.is_not(None),
            ),
        )
    )
    return {id_: Review.model_validate(stored) for id_, stored in rows}


def _concerned(
    session: Session, doubtful: Sequence[Sought], models: Collection[UUID]
) -> set[tuple[UUID, UUID]]:
    pairs = [(each.request_id, digest) for each in doubtful for digest in each.sample_digests]
    asked = (
        func.unnest(
            bindparam("ids", [id_ for id_, _ in pairs], ARRAY(Uuid)),
            bindparam("digests", [digest for _, digest in pairs], ARRAY(LargeBinary)),
        )
        .table_valued("id", "digest")
        .render_derived()
    )
    rows = session.execute(
        select(asked.c.id, ManifestEntry.model_id)
        .join(ManifestEntry, ManifestEntry.sample_digest == asked.c.digest)
        .where(ManifestEntry.model_id.in_(models))
        .distinct()
    )
    return {(request_id, model_id) for request_id, model_id in rows}


def _review_of(model: RegisteredModel) -> Review:
    try:
        return Review.model_validate(model.policy.get("review", {}))
    except ValidationError:  # of another release: somebody had better look
        return Review(approval="manual")
