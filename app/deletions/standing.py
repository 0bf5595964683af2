"""Where a request stands, by where its erasures do and by what was decided about it."""

from collections.abc import Set

from app.deletions.review import is_held
from app.statuses import ErasureStatus, RequestStatus
from app.tables import DeletionRequest

FINISHED = (
    RequestStatus.COMPLETED,
    RequestStatus.NOTHING_FOUND,
    RequestStatus.REJECTED,
    RequestStatus.CANCELLED,
)


def status_of(request: DeletionRequest, erasures: Set[str], awaited: bool) -> RequestStatus:
    """Return a request's status; ``awaited`` says that a model may still turn out to hold it."""
    if is_held(request):
        return RequestStatus.HELD
    return _sum_up(erasures) or _without_erasures(request, awaited)


def _sum_up(erasures: Set[str]) -> RequestStatus | None:
    if not erasures:
        return None
    if ErasureStatus.NEEDS_ATTENTION in erasures:
        return RequestStatus.NEEDS_ATTENTION
    for status in (ErasureStatus.COMPLETED, ErasureStatus.CANCELLED, ErasureStatus.REJECTED):
        if erasures == {status}:
            return RequestStatus(status.value)
    begun = {ErasureStatus.SCHEDULED, ErasureStatus.COMPLETED}
    if not erasures & {ErasureStatus.SCHEDULED, ErasureStatus.PENDING, ErasureStatus.PAUSED}:
        return RequestStatus.COMPLETED  # some completed, the rest cancelled or rejected
    return RequestStatus.IN_PROGRESS if erasures & begun else RequestStatus.PENDING


def _without_erasures(request: DeletionRequest, awaited: bool) -> RequestStatus:
    if request.rejected_at is not None:
        return RequestStatus.REJECTED
    if request.cancelled_at is not None:
        return RequestStatus.CANCELLED
    return RequestStatus.PENDING if awaited else RequestStatus.NOTHING_FOUND
