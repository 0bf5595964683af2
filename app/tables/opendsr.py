"""What controllers sent by OpenDSR, beside the deletion requests that it became."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, one_of


class SubjectRequestStatus(StrEnum):
    """Where OpenDSR says that a request stands; it knows neither a refused nor a failed one."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class SubjectRequest(Base):
    """A request as its controller knows it. No identity is in it, nor the body that had them."""

    __tablename__ = "opendsr_requests"
    __table_args__ = (one_of(SubjectRequestStatus, "told_status"),)

    client: Mapped[str] = mapped_column(primary_key=True)
    # Of the controller's making.
    subject_request_id: Mapped[UUID] = mapped_column(primary_key=True)
    deletion_request_id: Mapped[UUID] = mapped_column(
        ForeignKey("deletion_requests.id"), unique=True
    )
    # Where it was received, `https://` and the domain; workers, who end it, have no such setting.
    origin: Mapped[str]
    # When the person asked the controller.
    submitted_at: Mapped[datetime]
    api_version: Mapped[str | None]
    callback_urls: Mapped[list[Any]]
    # What the callbacks have told last, or are about to.
    told_status: Mapped[str]
