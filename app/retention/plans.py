"""When the weights of a withdrawn version go, and what else still needs the same bytes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.derived import ledger_files
from app.statuses import ModelStatus, VersionStatus
from app.tables import GradientLedger, ModelVersion, RegisteredModel
from lethe.policy import Retention


@dataclass(frozen=True, slots=True)
class Plan:
    """When a version is to be purged, and what that waits for once it is due."""

    due_at: datetime
    waits_for: tuple[str, ...]
    """In words, whatever needs a file of the same bytes; equal bytes are one file."""


def plan(session: Session, versions: Iterable[ModelVersion]) -> dict[UUID, Plan]:
    """Return when those of the versions that are withdrawn are to be purged."""
    withdrawn = [each for each in versions if each.status == VersionStatus.WITHDRAWN]
    if not withdrawn:
        return {}
    waiting = waits(session, due_versions(session))
    graces = _graces(session, {each.model_id for each in withdrawn})
    return {
        each.id: Plan(each.withdrawn_at + graces[each.model_id], tuple(waiting.get(each.id, ())))
        for each in withdrawn
        if each.withdrawn_at is not None
    }


def due_versions(session: Session) -> list[ModelVersion]:
    """Return the withdrawn versions that were kept for as long as their policies want."""
    at = clock(session)
    withdrawn = session.scalars(
        select(ModelVersion)
        .where(
            ModelVersion.status == VersionStatus.WITHDRAWN, ModelVersion.withdrawn_at.is_not(None)
        )
        .order_by(ModelVersion.withdrawn_at, ModelVersion.id)
        .execution_options(populate_existing=True)
    ).all()
    graces = _graces(session, {each.model_id for each in withdrawn})
    return [
        each
        for each in withdrawn
        if each.withdrawn_at is not None and each.withdrawn_at + graces[each.model_id] <= at
    ]


def waits(session: Session, due: Sequence[ModelVersion]) -> dict[UUID, list[str]]:
    """Return what each of the due versions waits for, in words; nothing for those that may go.

    Equal bytes are one file. Of versions that share one and are all due, none waits for another.
    """
    if not due:
        return {}
    ids = [each.id for each in due]
    files = {each.id: {each.digest} for each in due}
    own = select(GradientLedger.version_id, GradientLedger.digest).where(
        GradientLedger.version_id.in_(ids), GradientLedger.digest.is_not(None)
    )
    for version_id, digest in session.execute(own):
        files[version_id].add(str(digest))
    held = _held(session, {digest for some in files.values() for digest in some}, ids)
    return {
        id_: [words for digest in sorted(some) for words in held.get(digest, ())]
        for id_, some in files.items()
    }


def _held(
    session: Session, digests: Collection[str], leaving: Collection[UUID]
) -> dict[str, list[str]]:
    # What needs a file of these, in words by digest, besides the versions that leave.
    name = RegisteredModel.name
    versions = session.execute(
        select(ModelVersion.digest, name, ModelVersion.number)
        .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
        .where(
            ModelVersion.digest.in_(digests),
            ModelVersion.status != VersionStatus.PURGED,
            ModelVersion.id.not_in(leaving),
        )
        .order_by(name, ModelVersion.number)
    )
    checks = session.execute(
        select(RegisteredModel.checkpoint_digest, name)
        .where(
            RegisteredModel.checkpoint_digest.in_(digests),
            RegisteredModel.status == ModelStatus.CHECKING,
        )
        .order_by(name)
    )
    sums = session.execute(
        select(GradientLedger.digest, name, ModelVersion.number)
        .join(ModelVersion, ModelVersion.id == GradientLedger.version_id)
        .join(RegisteredModel, RegisteredModel.id == GradientLedger.model_id)
        .where(
            GradientLedger.digest.in_(digests),
            GradientLedger.version_id.not_in(leaving),
            ledger_files.needs_file(GradientLedger),
        )
        .order_by(name, ModelVersion.number)
    )
    found: dict[str, list[str]] = {}
    for digest, model, number in versions:
        found.setdefault(digest, []).append(f"{model}, version {number}")
    for digest, model in checks:
        found.setdefault(digest, []).append(f"{model}, being checked")
    for named, model, number in sums:
        if named is not None:
            found.setdefault(named, []).append(f"{model}, gradient ledger of version {number}")
    return found


def _graces(session: Session, model_ids: Collection[UUID]) -> Mapping[UUID, timedelta]:
    rows = session.execute(
        select(RegisteredModel.id, RegisteredModel.policy).where(RegisteredModel.id.in_(model_ids))
    )
    return {id_: _grace(policy) for id_, policy in rows}


def _grace(policy: Mapping[str, Any]) -> timedelta:
    # Not the whole policy: this is asked for every few seconds.
    return Retention.model_validate(policy.get("retention", {})).purge_after
