"""What references showed on the records that they never saw: counts, means, squared deviations.

Whoever calls what changes rows holds the lock of the model's references.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Double,
    LargeBinary,
    Select,
    bindparam,
    column,
    delete,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

from app.tables import HoldoutReferenceLoss, ManifestEntry, ReferenceLoss

Key = TypeVar("Key", bytes, int)
Table = type[ReferenceLoss] | type[HoldoutReferenceLoss]
Group = Literal["target", "judge"]

# Records in one statement: bounds its memory.
CHUNK = 50_000

# PostgreSQL refuses to square a number whose square is too small or too large for a double.
SMALLEST, LARGEST = 1e-100, 1e150

KEYS: dict[Table, tuple[InstrumentedAttribute[Any], TypeEngine[Any]]] = {
    ReferenceLoss: (ReferenceLoss.sample_digest, LargeBinary()),
    HoldoutReferenceLoss: (HoldoutReferenceLoss.position, BigInteger()),
}


@dataclass(frozen=True, slots=True)
class Losses:
    """What one reference showed on the records that it never saw; each loss is finite."""

    group: Group
    digests: Sequence[bytes]
    """Of the training records that it never saw, each once."""
    training: Sequence[float]
    """Their losses, in the same order."""
    positions: Sequence[int]
    """Of the holdout records that are counted for it, each once."""
    holdout: Sequence[float]
    """Their losses, in the same order."""
    records: int
    """How many records it was trained on."""
    weights_digest: str
    """Of its weights, which were destroyed."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Moments:
    """Of each record: how many losses, their mean, and the sum of squared deviations from it."""

    counts: list[int]
    means: list[float]
    squares: list[float]


@dataclass(frozen=True, slots=True)
class Rows:
    """What the references of either group showed on some records, in the order asked for."""

    targets: Moments
    judges: Moments


def add(session: Session, set_id: UUID, model_id: UUID, losses: Losses) -> None:
    """Add one reference's losses, except those of samples that the model has forgotten."""
    retained = select(ManifestEntry.sample_digest).where(
        ManifestEntry.model_id == model_id, ManifestEntry.forgotten_by_job_id.is_(None)
    )
    for digests, values in _chunks(losses.digests, losses.training):
        given = _given(ReferenceLoss, digests, values)
        _merge(session, ReferenceLoss, set_id, losses.group, given, retained)
    for positions, values in _chunks(losses.positions, losses.holdout):
        given = _given(HoldoutReferenceLoss, positions, values)
        _merge(session, HoldoutReferenceLoss, set_id, losses.group, given, None)


def delete_all(session: Session, set_ids: Sequence[UUID]) -> None:
    """Delete the numbers of sets."""
    for table in KEYS:
        session.execute(delete(table).where(table.set_id.in_(set_ids)))


def delete_samples(session: Session, set_ids: Select[UUID], digests: Select[bytes]) -> None:
    """Delete the numbers of samples in sets."""
    session.execute(
        delete(ReferenceLoss)
        .where(ReferenceLoss.set_id.in_(set_ids), ReferenceLoss.sample_digest.in_(digests))
        .execution_options(synchronize_session=False)
    )


def losses_of(session: Session, set_id: UUID, digests: Sequence[bytes]) -> Rows:
    """Return a set's numbers of training samples; a count of 0 where it has none."""
    return _read(session, ReferenceLoss, set_id, digests)


def holdout_losses_of(session: Session, set_id: UUID, positions: Sequence[int]) -> Rows:
    """Return a set's numbers of holdout records; a count of 0 where it has none."""
    return _read(session, HoldoutReferenceLoss, set_id, positions)


def _chunks(
    keys: Sequence[Key], values: Sequence[float]
) -> Iterator[tuple[list[Key], list[float]]]:
    if len(keys) != len(values):
        raise ValueError(f"{len(values)} losses for {len(keys)} records")
    for start in range(0, len(keys), CHUNK):
        chunk = slice(start, start + CHUNK)
        yield list(keys[chunk]), [_storable(value) for value in values[chunk]]


def _storable(loss: float) -> float:
    return 0.0 if abs(loss) < SMALLEST else max(-LARGEST, min(LARGEST, loss))


def _given(table: Table, keys: list[Any], values: list[float]) -> TableValuedAlias:
    of_key = KEYS[table][1]
    return (
        func.unnest(
            bindparam("keys", keys, ARRAY(of_key)), bindparam("losses", values, ARRAY(Double))
        )
        .table_valued(column("key", of_key), column("loss", Double))
        .render_derived(name="given")
    )


def _merge(
    session: Session,
    table: Table,
    set_id: UUID,
    group: Group,
    given: TableValuedAlias,
    allowed: Select[bytes] | None,
) -> None:
    """Add one loss to each record's numbers (Welford, Technometrics 4(3), 1962)."""
    count, mean, squares = names = [f"{group}_{what}" for what in ("count", "mean", "squares")]
    key = KEYS[table][0].key
    rows = select(literal(set_id), given.c.key, literal(1), given.c.loss, literal(0.0))
    if allowed is not None:
        rows = rows.where(given.c.key.in_(allowed))
    statement = insert(table).from_select(["set_id", key, *names], rows)
    old = table.__table__.c
    grown = old[count] + 1
    shift = statement.excluded[mean] - old[mean]
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["set_id", key],
            set_={
                count: grown,
                mean: old[mean] + shift / grown,
                squares: old[squares] + shift * shift * old[count] / grown,
            },
        )
    )


def _read(session: Session, table: Table, set_id: UUID, keys: Sequence[Any]) -> Rows:
    key, of_key = KEYS[table]
    found: dict[Any, Any] = {}
    for start in range(0, len(keys), CHUNK):
        chunk = bindparam("keys", list(keys[start : start + CHUNK]), ARRAY(of_key))
        of_chunk = table.set_id == set_id, key == func.any(chunk)
        # Columns and not objects, each of which the session would keep.
        for row in session.execute(select(table.__table__).where(*of_chunk)):
            found[getattr(row, key.key)] = row
    return Rows(_moments("target", found, keys), _moments("judge", found, keys))


def _moments(group: Group, found: dict[Any, Any], keys: Sequence[Any]) -> Moments:
    rows = [found.get(key) for key in keys]
    return Moments(
        counts=[0 if row is None else getattr(row, f"{group}_count") for row in rows],
        means=[0.0 if row is None else getattr(row, f"{group}_mean") for row in rows],
        squares=[0.0 if row is None else getattr(row, f"{group}_squares") for row in rows],
    )
