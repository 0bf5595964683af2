"""The endpoints of clients, and each attempt to reach one of those who are told something."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.tables.base import Base


class Signer(StrEnum):
    """In which way a message shows its receiver who sent it."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    OPENDSR = "opendsr"


class Callback(Base):
    """An endpoint of a client, which is told how the client's requests fare."""

    __tablename__ = "callbacks"
    __table_args__ = (
        # Asked at each change of a request's status.
        Index(
            "ix_callbacks_in_use",
            "client",
            postgresql_where=text("removed_at IS NULL AND disabled_at IS NULL"),
        ),
        Index(None, "client", "created_at", "id"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client: Mapped[str]
    url: Mapped[str]
    # None for all of them, those of later releases included.
    events: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    secret: Mapped[bytes | None]
    # Signs beside the new one for a while after a rotation.
    former_secret: Mapped[bytes | None]
    former_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[str | None]
    removed_at: Mapped[datetime | None]


class DeliveryAttempt(Base):
    """What came of one attempt at a delivery; one whose sender died left none."""

    __tablename__ = "delivery_attempts"

    delivery_id: Mapped[UUID] = mapped_column(ForeignKey("deliveries.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    seconds: Mapped[float]
    # What was answered, if anything was.
    status: Mapped[int | None]
    problem: Mapped[str | None]
