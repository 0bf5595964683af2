"""Register those who run a model, and take their acknowledgements."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from app import pages
from app.audit import ledger
from app.db import now
from app.errors import Conflict, NotFound
from app.recall import notices
from app.settings import settings
from app.tables import Delivery, ModelVersion, Notice, Recipient, RegisteredModel
from app.webhooks import addresses, outbox, signing

REMOVED = "the recipient was removed"


@dataclass(frozen=True, slots=True)
class RecipientView:
    """A recipient with what its reader asks for."""

    recipient: Recipient
    model: str
    unacknowledged: int
    overdue: int


@dataclass(frozen=True, slots=True)
class NoticeView:
    """A notice with what its reader asks for."""

    notice: Notice
    recipient: Recipient
    model: str
    version: ModelVersion
    overdue: bool
    delivery: Delivery | None


def register(session: Session, model_name: str, name: str, url: str | None) -> Recipient:
    """Take somebody in who is to be told of every withdrawal from now on.

    Raises:
        AddressRefused: no message is sent to such an address.
        Conflict: the model has a recipient of this name.
        NotFound: there is no such model.

    """
    if url is not None:
        addresses.parse(
            url,
            plain_http=settings().mode == "embedded",
            allowed=settings().webhook_private_networks or (),
        )
    model = find_model(session, model_name)
    notices.hold_recipients(session, model.id)
    taken = select(Recipient.id).where(
        Recipient.model_id == model.id, Recipient.name == name, Recipient.removed_at.is_(None)
    )
    if session.scalar(taken) is not None:
        raise Conflict("The model has a recipient of this name: remove it, or take another name.")
    secret = None if url is None else signing.new_secret()
    row = Recipient(model_id=model.id, name=name, url=url, secret=secret)
    session.add(row)
    session.flush()
    _report(session, "recipient.registered", row)
    return row


def remove(session: Session, model_name: str, recipient_id: UUID) -> None:
    """Tell a recipient of no further withdrawal; what it was told of stays to be acknowledged.

    Raises:
        NotFound: the model never had such a recipient.

    """
    row = find(session, model_name, recipient_id)
    notices.hold_recipients(session, row.model_id)
    removed = session.execute(
        update(Recipient)
        .where(Recipient.id == row.id, Recipient.removed_at.is_(None))
        .values(removed_at=now(), secret=None)
        .returning(Recipient.id)
    ).first()
    if removed is None:
        return  # it was before
    told = session.scalars(select(Notice.id).where(Notice.recipient_id == row.id)).all()
    outbox.give_up(session, told, REMOVED)
    _report(session, "recipient.removed", row)


def acknowledge(session: Session, notice_id: UUID, by: str) -> Notice:
    """Note that a recipient took note; the first one who says so is kept.

    Raises:
        NotFound: there is no such notice.

    """
    moved = session.scalars(
        update(Notice)
        .where(Notice.id == notice_id, Notice.acknowledged_at.is_(None))
        .values(acknowledged_at=now(), acknowledged_by=by)
        .returning(Notice)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).first()
    if moved is None:
        return find_notice(session, notice_id)
    version = session.get_one(ModelVersion, moved.version_id)
    entry = ledger.Entry("notice.acknowledged", moved.id, notices.facts(moved, version))
    ledger.append(session, [entry])
    # Who knows already is not written to any more.
    outbox.give_up(session, [moved.id], "acknowledged")
    return moved


def find_model(session: Session, name: str) -> RegisteredModel:
    """Return one model by its name.

    Raises:
        NotFound: there is none.

    """
    model = session.scalars(select(RegisteredModel).where(RegisteredModel.name == name)).first()
    if model is None:
        raise NotFound("No model has this name.")
    return model


def find(session: Session, model_name: str, recipient_id: UUID) -> Recipient:
    """Return one recipient of a model, whether it was removed or not.

    Raises:
        NotFound: there is no such model, or it never had such a recipient.

    """
    model = find_model(session, model_name)
    row = session.get(Recipient, recipient_id)
    if row is None or row.model_id != model.id:
        raise NotFound("The model has no recipient of this id.")
    return row


def find_notice(session: Session, notice_id: UUID) -> Notice:
    """Return one notice.

    Raises:
        NotFound: there is none of this id.

    """
    row = session.get(Notice, notice_id)
    if row is None:
        raise NotFound("No notice has this id.")
    return row


def browse(
    session: Session, model_name: str, cursor: str | None, limit: int, *, removed: bool
) -> pages.Page[Recipient]:
    """Return a page of a model's recipients, newest first; the removed ones only if asked for.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.
        NotFound: there is no such model.

    """
    model = find_model(session, model_name)
    statement: Select[tuple[Recipient]] = select(Recipient)
    statement = statement.where(Recipient.model_id == model.id)
    if not removed:
        statement = statement.where(Recipient.removed_at.is_(None))
    at = Recipient.created_at
    return pages.newest_first(
        session, statement, at.expression, Recipient.id.expression, cursor, limit
    )


def browse_notices(
    session: Session,
    cursor: str | None,
    limit: int,
    *,
    recipient_id: UUID | None = None,
    acknowledged: bool | None = None,
    older_than: timedelta | None = None,
) -> pages.Page[Notice]:
    """Return a page of notices, newest first; of one recipient, or open, or old, if asked for.

    Raises:
        InvalidCursor: the cursor is not one that an earlier page gave.

    """
    statement: Select[tuple[Notice]] = select(Notice)
    if recipient_id is not None:
        statement = statement.where(Notice.recipient_id == recipient_id)
    if acknowledged is not None:
        at = Notice.acknowledged_at
        statement = statement.where(at.is_not(None) if acknowledged else at.is_(None))
    if older_than is not None:
        statement = statement.where(notices.older_than(older_than))
    created = Notice.created_at
    return pages.newest_first(
        session, statement, created.expression, Notice.id.expression, cursor, limit
    )


def views(session: Session, recipients: Sequence[Recipient]) -> list[RecipientView]:
    """Return recipients with their models' names and how many notices they owe an answer to."""
    ids = [row.id for row in recipients]
    counted = session.execute(
        select(Notice.recipient_id, func.count(), func.count().filter(notices.overdue()))
        .where(Notice.recipient_id.in_(ids), Notice.acknowledged_at.is_(None))
        .group_by(Notice.recipient_id)
    )
    owed = {id_: (open_, overdue) for id_, open_, overdue in counted}
    names = _names(session, {row.model_id for row in recipients})
    return [
        RecipientView(row, names[row.model_id], *owed.get(row.id, (0, 0))) for row in recipients
    ]


def notice_views(session: Session, rows: Sequence[Notice]) -> list[NoticeView]:
    """Return notices with the recipients, models, versions and deliveries that belong to them."""
    ids = [row.id for row in rows]
    recipients = {
        each.id: each
        for each in session.scalars(
            select(Recipient).where(Recipient.id.in_({row.recipient_id for row in rows}))
        )
    }
    versions = {
        each.id: each
        for each in session.scalars(
            select(ModelVersion).where(ModelVersion.id.in_({row.version_id for row in rows}))
        )
    }
    names = _names(session, {each.model_id for each in recipients.values()})
    overdue = set(session.scalars(select(Notice.id).where(Notice.id.in_(ids), notices.overdue())))
    sent = notices.deliveries(session, ids)
    return [
        NoticeView(
            notice=row,
            recipient=recipients[row.recipient_id],
            model=names[recipients[row.recipient_id].model_id],
            version=versions[row.version_id],
            overdue=row.id in overdue,
            delivery=sent.get(row.id),
        )
        for row in rows
    ]


def _names(session: Session, model_ids: Collection[UUID]) -> Mapping[UUID, str]:
    statement = select(RegisteredModel.id, RegisteredModel.name)
    rows = session.execute(statement.where(RegisteredModel.id.in_(model_ids)))
    return dict(rows.all())


def _report(session: Session, event: str, row: Recipient) -> None:
    # Its name may be a person's, and the log forgets nothing.
    ledger.append(session, [ledger.Entry(event, row.id, {"model": str(row.model_id)})])
