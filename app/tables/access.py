"""Keys of clients."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.tables.base import Base


class AccessKey(Base):
    """A key that was given to a client, which may have several; the secret's digest alone."""

    __tablename__ = "access_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    secret_digest: Mapped[bytes]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
