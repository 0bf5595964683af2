"""Tell those who run a version that it was withdrawn, and see who has not acknowledged it.

GDPR Art. 19 asks to tell each recipient of data of its erasure. A version that still holds the data
is such data, and whoever registered as running the model is a recipient.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from app.audit import ledger
from app.db import lock, now
from app.settings import settings
from app.tables import Delivery, ModelVersion, Notice, Recipient, RegisteredModel
from app.webhooks import outbox

WITHDRAWN = "version.withdrawn"
NOTICES = "/v1/notices"
REMINDER_SECONDS = 3600.0


@dataclass(slots=True)
class Reminder:
    """Says what is overdue, and then nothing more of it for an hour."""

    said_at: float | None = None
    """On the monotonic clock."""

    def due(self, session: Session) -> dict[str, int]:
        """Return how many notices of each model are overdue, if that is to be said now."""
        if self.said_at is not None and time.monotonic() - self.said_at < REMINDER_SECONDS:
            return {}
        counts = count_overdue(session)
        if counts:
            self.said_at = time.monotonic()
        return counts


def hold_recipients(session: Session, model_id: UUID) -> None:
    """Keep others from changing a model's recipients, or withdrawing its version, until the commit.

    So whoever is answered that they are a recipient learns of every withdrawal that commits later.
    """
    lock(session, f"recipients/{model_id}")


def create(session: Session, withdrawn: ModelVersion, current: ModelVersion) -> list[Notice]:
    """Make a notice for each recipient of a version that the caller's transaction withdraws.

    Where a recipient gave an address, a message goes there once the transaction commits.
    """
    hold_recipients(session, withdrawn.model_id)
    recipients = session.scalars(
        select(Recipient)
        .where(Recipient.model_id == withdrawn.model_id, Recipient.removed_at.is_(None))
        .order_by(Recipient.created_at)
    ).all()
    if not recipients:
        return []
    made = {each.id: Notice(recipient_id=each.id, version_id=withdrawn.id) for each in recipients}
    session.add_all(made.values())
    session.flush()
    ledger.append(
        session,
        [
            ledger.Entry("notice.created", notice.id, facts(notice, withdrawn))
            for notice in made.values()
        ],
    )
    name = session.get_one(RegisteredModel, withdrawn.model_id).name
    for recipient in recipients:
        _send(session, recipient, made[recipient.id], name, withdrawn, current)
    return list(made.values())


def facts(notice: Notice, version: ModelVersion) -> dict[str, object]:
    """Return what the audit log says of a notice: no name, neither a person's nor a system's."""
    return {
        "recipient": str(notice.recipient_id),
        "model": str(version.model_id),
        "version": version.number,
        "digest": version.digest,
    }


def overdue() -> ColumnElement[bool]:
    """Return the condition under which a notice should have been acknowledged by now."""
    return and_(Notice.acknowledged_at.is_(None), older_than(settings().recall_overdue))


def older_than(age: timedelta) -> ColumnElement[bool]:
    """Return the condition under which a notice was made longer ago than this."""
    return Notice.created_at < func.clock_timestamp() - age


def count_overdue(session: Session) -> dict[str, int]:
    """Return how many notices are overdue, by the names of their models."""
    counted = session.execute(
        select(RegisteredModel.name, func.count())
        .select_from(Notice)
        .join(Recipient, Recipient.id == Notice.recipient_id)
        .join(RegisteredModel, RegisteredModel.id == Recipient.model_id)
        .where(overdue())
        .group_by(RegisteredModel.name)
        .order_by(RegisteredModel.name)
    )
    return dict(counted.all())


def deliveries(session: Session, notices: Collection[UUID]) -> Mapping[UUID, Delivery]:
    """Return the deliveries of those notices that have one."""
    rows = session.scalars(select(Delivery).where(Delivery.notice_id.in_(notices)))
    return {row.notice_id: row for row in rows if row.notice_id is not None}


def _send(
    session: Session,
    recipient: Recipient,
    notice: Notice,
    model: str,
    withdrawn: ModelVersion,
    current: ModelVersion,
) -> None:
    if recipient.url is None or recipient.secret is None:
        return
    outbox.enqueue(
        session,
        recipient.url,
        recipient.secret,
        WITHDRAWN,
        withdrawn.withdrawn_at or now(),
        {
            "notice": str(notice.id),
            "acknowledge_at": f"{NOTICES}/{notice.id}/acknowledgement",
            "model": model,
            "version": withdrawn.number,
            "digest": withdrawn.digest,
            "current_version": current.number,
            "current_digest": current.digest,
        },
        notice.id,
    )
