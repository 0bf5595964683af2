"""Which requests wait for somebody's approval before anything is done about them."""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy.orm import Session

from app.db import now
from app.deletions.registered import Registered, review_of
from app.settings import settings
from app.tables import DeletionRequest, RegisteredModel
from lethe.policy import Review


def to_hold(
    model: Registered | None,
    held_by: Collection[UUID],
    samples: int,
    reviewing: Mapping[UUID, Review],
) -> bool:
    """Tell whether the service holds a new request, or a model that it concerns.

    Args:
        model: the one that the request is limited to.
        held_by: the models that hold any of its samples.
        samples: how many it names.
        reviewing: the policies of the models that may hold it.

    """
    if settings().review == "manual":
        return True
    if model is not None:
        return model.review.holds(samples)
    return any(reviewing[id_].holds(samples) for id_ in held_by if id_ in reviewing)


def hold_for(session: Session, model_id: UUID, requests: Collection[DeletionRequest]) -> None:
    """Hold the requests that a model would add to which has just become ready, if it reviews.

    What other models were asked for goes on.
    """
    review = review_of(session.get_one(RegisteredModel, model_id).policy.get("review"))
    for request in requests:
        if request.approved_at is None and request.held_at is None and not _ended(request):
            request.held_at = now() if review.holds(request.sample_count) else None
    session.flush()


def is_held(request: DeletionRequest) -> bool:
    """Tell whether a request waits for an approval."""
    return request.held_at is not None and request.approved_at is None and not _ended(request)


def _ended(request: DeletionRequest) -> bool:
    return request.rejected_at is not None or request.cancelled_at is not None
