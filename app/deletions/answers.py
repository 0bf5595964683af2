"""Requests as their clients see them, with what is expected of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from app.db import now
from app.deletions import forecasts, schemas, service
from app.tables import DeletionRequest


@dataclass(frozen=True, slots=True)
class Told:
    """An answer, and how long it is likely to stay true; None for a finished request."""

    answer: schemas.DeletionRequestAnswer
    poll_after: timedelta | None


def tell(
    session: Session, requests: Sequence[DeletionRequest], *, foresee: bool = True
) -> list[Told]:
    """Return what clients see of requests, in their order; without forecasts unless they are asked.

    The number of statements does not depend on how many requests there are.
    """
    views = service.erasures_of(session, [request.id for request in requests])
    names = service.model_names(
        session, [request.model_id for request in requests if request.model_id is not None]
    )
    erasures = {id_: [view.erasure for view in several] for id_, several in views.items()}
    found = forecasts.forecast(session, requests, erasures) if foresee else {}
    at = now()
    return [
        Told(
            schemas.describe(
                request,
                views[request.id],
                None if request.model_id is None else names[request.model_id],
                found.get(request.id),
            ),
            forecasts.poll_after(found[request.id], at) if request.id in found else None,
        )
        for request in requests
    ]
