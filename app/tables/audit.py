"""The transparency log; its rows never change."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import now
from app.tables.base import Base


class AuditEntry(Base):
    """What happened, as canonical JSON: the bytes that a leaf of the log hashes."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "subject"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    event: Mapped[str]
    subject: Mapped[UUID]
    payload: Mapped[str]


class AuditPending(Base):
    """An entry that was committed and has no place in the log yet."""

    __tablename__ = "audit_pending"

    entry_id: Mapped[int] = mapped_column(ForeignKey("audit_entries.id"), primary_key=True)


class AuditLeaf(Base):
    """An entry's place in the log."""

    __tablename__ = "audit_leaves"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(ForeignKey("audit_entries.id"), unique=True)


class AuditNode(Base):
    """The hash of a complete subtree of 2^level leaves, the index-th of its level."""

    __tablename__ = "audit_nodes"

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[bytes]


class AuditHead(Base):
    """A tree head that was shown to somebody; every later one is consistent with it."""

    __tablename__ = "audit_heads"

    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    root_hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now)


APPEND_ONLY_TABLES = (
    "audit_entries",
    "audit_leaves",
    "audit_nodes",
    "audit_heads",
    "signed_heads",
)
