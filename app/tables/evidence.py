"""What is signed, committed to, recorded for audits, and told to those who got a version."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.tables.base import Base, one_of
from app.tables.callbacks import Signer


class LogOrigin(Base):
    """The name of this log, which every signed tree head carries; one row, made once."""

    __tablename__ = "log_origin"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str]


class PublishedKey(Base):
    """A public key that has signed here, and until when its signatures are to be believed."""

    __tablename__ = "published_keys"

    # The JWK thumbprint.
    id: Mapped[str] = mapped_column(primary_key=True)
    purpose: Mapped[str]
    public_pem: Mapped[str]
    # Made for the embedded mode: not to be used outside of it.
    generated: Mapped[bool]
    introduced_at: Mapped[datetime] = mapped_column(default=now)
    retired_at: Mapped[datetime | None]


class SignedHead(Base):
    """A tree head as a signed note (C2SP tlog-checkpoint); rows never change."""

    __tablename__ = "signed_heads"
    __table_args__ = (Index(None, "size", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    size: Mapped[int]
    key_id: Mapped[str] = mapped_column(ForeignKey("published_keys.id"))
    note: Mapped[str]
    signed_at: Mapped[datetime]


class WitnessFeed(Base):
    """How far a witness has been told of the log, by the digest of its address."""

    __tablename__ = "witness_feeds"

    url_digest: Mapped[str] = mapped_column(primary_key=True)
    # The size of the last tree head that it took.
    size: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    told_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]


class Transition(Base):
    """The proof that a version's commitment is its parent's without what its job forgot."""

    __tablename__ = "transitions"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    proof: Mapped[bytes]


class JobRecord(Base):
    """The inputs of a job's published attempt, for repeating it."""

    __tablename__ = "job_records"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("unlearning_jobs.id"), primary_key=True)
    inputs: Mapped[dict[str, Any]]
    # Numbers about single samples, removed with the parent's weights.
    losses: Mapped[bytes | None]


class Recipient(Base):
    """Somebody who deploys a model, and is told when a version is withdrawn (GDPR Art. 19)."""

    __tablename__ = "recipients"
    __table_args__ = (
        # A name is free again once its recipient was removed.
        Index(
            "uq_recipients_in_use",
            "model_id",
            "name",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id"))
    name: Mapped[str]
    url: Mapped[str | None]
    # Signs what is sent to the url (Standard Webhooks), shown once.
    secret: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]


class Notice(Base):
    """One withdrawal that one recipient is to be told of, and has to acknowledge."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("recipient_id", "version_id"),
        Index(
            "ix_notices_open",
            "created_at",
            "id",
            postgresql_where=text("acknowledged_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    recipient_id: Mapped[UUID] = mapped_column(ForeignKey("recipients.id"))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]


class Delivery(Base):
    """A message to an address outside, sent until it is taken or given up."""

    __tablename__ = "deliveries"
    __table_args__ = (
        one_of(Signer, "signer"),
        UniqueConstraint("notice_id"),
        Index(
            "ix_deliveries_due",
            "not_before",
            postgresql_where=text("delivered_at IS NULL AND given_up_at IS NULL"),
        ),
        # What a message has to wait for, or has waiting behind it.
        Index(
            "ix_deliveries_open_in_lane",
            "lane",
            "position",
            postgresql_where=text(
                "lane IS NOT NULL AND delivered_at IS NULL AND given_up_at IS NULL"
            ),
        ),
        # What the log has kept for the longest time; messages of notices are not for removal.
        Index(
            "ix_deliveries_over",
            text("coalesce(delivered_at, given_up_at)"),
            postgresql_where=text(
                "notice_id IS NULL AND coalesce(delivered_at, given_up_at) IS NOT NULL"
            ),
        ),
        Index(None, "created_at", "id"),
        Index(None, "client", "created_at", "id"),
        Index(None, "callback_id", "created_at", "id"),
        Index(None, "request_id", "created_at", "id"),
    )

    # Also the message's id for its receiver, the same at each attempt.
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    # In the order in which they were promised.
    position: Mapped[int] = mapped_column(Identity(always=True))
    notice_id: Mapped[UUID | None] = mapped_column(ForeignKey("notices.id"))
    callback_id: Mapped[UUID | None] = mapped_column(ForeignKey("callbacks.id"))
    request_id: Mapped[UUID | None] = mapped_column(ForeignKey("deletion_requests.id"))
    # Whose log it stands in; the operator's alone without one.
    client: Mapped[str | None]
    # Of those with the same one, each waits for the earlier ones.
    lane: Mapped[UUID | None]
    signer: Mapped[str] = mapped_column(default=Signer.STANDARD_WEBHOOKS)
    url: Mapped[str]
    # Of the url; a host gets one message at a time, so that a slow one holds up itself alone.
    host: Mapped[str]
    # Removed as soon as nothing is to be signed any more; a callback has its own.
    secret: Mapped[bytes | None]
    event: Mapped[str]
    payload: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    # Those before the last replay, with which the pauses began anew.
    earlier_attempts: Mapped[int] = mapped_column(default=0)
    # The end of a pause, or of the time that whoever sends it has for that.
    not_before: Mapped[datetime] = mapped_column(default=now)
    created_at: Mapped[datetime] = mapped_column(default=now)
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    # What the last attempt met: a status or the kind of error, never what was answered.
    problem: Mapped[str | None]
