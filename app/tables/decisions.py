"""What was decided about deletion requests, by whom and when."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.statuses import DecisionAction
from app.tables.base import Base, one_of


class Decision(Base):
    """One decision about one request. The log has all of it but the note."""

    __tablename__ = "decisions"
    __table_args__ = (one_of(DecisionAction, "action"), Index(None, "request_id", "at", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"))
    action: Mapped[str]
    # A client: an application or a role.
    by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default=now)
    # Of a fixed list, where the action has one.
    reason: Mapped[str | None]
    # In words of their own, which may hold personal data.
    note: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
