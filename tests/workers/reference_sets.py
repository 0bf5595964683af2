"""What tests note of references in the making, and what they look up."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from torch import Tensor

from app.db import transaction
from app.tables import HoldoutReferenceLoss, ReferenceLoss, ReferenceSet
from workers import references as making

PLANNED = 8
SEED = 2024


@dataclass
class Trainings:
    """What the recipe's trainings were given, and what came out of them."""

    seen: list[list[int]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)


def make_all(set_id: UUID) -> int:
    made = 1
    while making.make_reference(set_id):
        made += 1
    return made


def row(set_id: UUID) -> ReferenceSet:
    with transaction() as session:
        return session.get_one(ReferenceSet, set_id)


def rows(set_id: UUID) -> list[tuple[Any, ...]]:
    """Return all numbers of a set."""
    found: list[tuple[Any, ...]] = []
    with transaction() as session:
        for table in (ReferenceLoss, HoldoutReferenceLoss):
            columns = [column for column in table.__table__.c if column.name != "set_id"]
            of_set = select(*columns).where(table.set_id == set_id).order_by(columns[0])
            found += [tuple(found_row) for found_row in session.execute(of_set)]
    return found


def expire(set_id: UUID) -> None:
    with transaction() as session:
        session.execute(
            update(ReferenceSet)
            .where(ReferenceSet.id == set_id)
            .values(lease_expires_at=text("now() - interval '1s'"))
        )
