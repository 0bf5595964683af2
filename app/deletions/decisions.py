"""Keep who decided what about a request, and when: a row, and an entry of the log.

The entry comes before those of what follows from the decision.
"""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import pages
from app.audit import ledger
from app.db import now
from app.statuses import DecisionAction
from app.tables import Decision


def record(
    session: Session,
    request_id: UUID,
    action: DecisionAction,
    by: str,
    *,
    reason: str | None = None,
    note: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Keep a decision about one request. The note stays in the row and out of the log."""
    record_all(session, [request_id], action, by, reason=reason, note=note, facts=facts)


def record_all(
    session: Session,
    request_ids: Collection[UUID],
    action: DecisionAction,
    by: str,
    *,
    reason: str | None = None,
    note: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Keep one decision that was made about several requests."""
    known = dict(facts or {})
    at = now()
    rows = [
        Decision(
            id=uuid4(),
            request_id=request_id,
            action=action,
            by=by,
            at=at,
            reason=reason,
            note=note,
            facts=known,
        )
        for request_id in request_ids
    ]
    session.add_all(rows)
    session.flush()
    told = {**known, "by": by, **({} if reason is None else {"reason": reason})}
    ledger.append(
        session,
        [
            ledger.Entry(f"decision.{action}", row.request_id, {"decision": str(row.id), **told})
            for row in rows
        ],
    )


def browse(
    session: Session, request_id: UUID, cursor: str | None, limit: int
) -> pages.Page[Decision]:
    """Return a page of the decisions about a request, newest first.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    statement: Select[tuple[Decision]] = select(Decision)
    statement = statement.where(Decision.request_id == request_id)
    return pages.newest_first(
        session, statement, Decision.at.expression, Decision.id.expression, cursor, limit
    )


def last(session: Session, request_id: UUID, *actions: DecisionAction) -> Decision | None:
    """Return the last decision of these kinds about a request."""
    return session.scalars(
        select(Decision)
        .where(Decision.request_id == request_id, Decision.action.in_(actions))
        .order_by(Decision.at.desc(), Decision.id.desc())
        .limit(1)
    ).first()
