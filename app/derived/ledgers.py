"""Gradient ledgers in the database: whose turn it is, and what each is valid for."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now
from app.derived import leasing, ledger_files, manifest
from app.errors import IllegalMove
from app.statuses import LedgerStatus, VersionStatus
from app.tables import GradientLedger, ModelVersion, RegisteredModel


@dataclass(frozen=True, slots=True)
class ToCompute:
    """All that a worker needs to know of a ledger it has claimed; it holds no database rows."""

    claim: leasing.Claim
    model_id: UUID
    recipe: str
    version_id: UUID
    weights_digest: str
    data_fingerprint: str
    """Of all the data that the model was registered with."""
    id_key_id: str
    forgotten: frozenset[bytes]
    """Digests of the samples that the version does not retain."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A ledger that may be used, as long as all that it is valid for is still the same."""

    digest: str
    weights_digest: str
    data_fingerprint: str
    """See ``retained_fingerprint``."""
    recipe_fingerprint: str
    records: int


def retained_fingerprint(data_fingerprint: str, forgotten: Collection[bytes]) -> str:
    """Return the digest of a model's data without the forgotten samples, ``sha256:`` and hex."""
    whole = hashlib.sha256(b"lethe retained data\0")
    whole.update(data_fingerprint.encode() + b"\0")
    for digest in sorted(forgotten):
        whole.update(digest)  # all of one length, so that no two run together
    return "sha256:" + whole.hexdigest()


def begin(session: Session, model_id: UUID, version_id: UUID) -> GradientLedger:
    """Ask for the ledger of a version that has just become current."""
    row = GradientLedger(model_id=model_id, version_id=version_id)
    return lifecycle.begin(session, row, {"model": str(model_id), "version": str(version_id)})


def claim(session: Session, ledger_id: UUID, lease: timedelta) -> ToCompute | None:
    """Take a ledger for one lease; None if it is not to be had or not needed, which is no error.

    The ledger of a version that is not current any more becomes void.
    """
    claimed = leasing.claim(session, GradientLedger, ledger_id, lease)
    if claimed is None:
        return None
    row = session.get_one(GradientLedger, ledger_id, populate_existing=True)
    version = session.get_one(ModelVersion, row.version_id)
    if version.status != VersionStatus.CURRENT:
        void(session, version.id, "superseded")
        return None
    model = session.get_one(RegisteredModel, row.model_id)
    if model.data_fingerprint is None or model.id_key_id is None:
        raise RuntimeError(f"model {model.id} has a ledger and was never checked")
    return ToCompute(
        claim=claimed,
        model_id=model.id,
        recipe=model.recipe,
        version_id=version.id,
        weights_digest=version.digest,
        data_fingerprint=model.data_fingerprint,
        id_key_id=model.id_key_id,
        forgotten=frozenset(session.scalars(manifest.forgotten(model.id))),
    )


def hold(session: Session, to_compute: ToCompute, lease: timedelta) -> None:
    """Hold a ledger for another lease.

    Raises:
        LeaseLost: another claim has it, or it is void.

    """
    leasing.hold(session, GradientLedger, to_compute.claim, lease)


def announce(
    session: Session, to_compute: ToCompute, digest: str, delete: Callable[[str], None]
) -> None:
    """Note which file is about to appear in the store, so that it is found whatever happens.

    The file that a worker left which died over this ledger is deleted, unless it is the same.

    Raises:
        LeaseLost: another claim has the ledger, or it is void.

    """
    leasing.lock_held(session, GradientLedger, to_compute.claim)
    row = session.get_one(GradientLedger, to_compute.claim.id, populate_existing=True)
    if row.digest != digest:
        ledger_files.remove(session, row, delete)
    ledger_files.name(session, row.id, digest)


def finish(
    session: Session,
    to_compute: ToCompute,
    digest: str,
    records: int,
    recipe_fingerprint: str,
    data_fingerprint: str,
    seconds: float,
) -> GradientLedger:
    """Make a ledger ready whose file is durable; the data are those of ``retained_fingerprint``.

    Raises:
        LeaseLost: another claim has the ledger, or it is void.

    """
    values = {
        "digest": digest,
        "weights_digest": to_compute.weights_digest,
        "data_fingerprint": data_fingerprint,
        "recipe_fingerprint": recipe_fingerprint,
        "records": records,
        "seconds": seconds,
    }
    return _end(session, to_compute, LedgerStatus.READY, values)


def give_back(session: Session, to_compute: ToCompute, error: str, attempts: int) -> None:
    """Let another worker try after a passing error, or end it when its attempts are used up.

    Raises:
        LeaseLost: another claim has the ledger, or it is void.

    """
    claimed = to_compute.claim
    if claimed.attempt >= attempts:
        fail(session, to_compute, f"gave up after {claimed.attempt} attempts: {error}")
        return
    leasing.hold(session, GradientLedger, claimed, None)
    session.execute(
        update(GradientLedger).where(GradientLedger.id == claimed.id).values(error=error)
    )


def fail(session: Session, to_compute: ToCompute, error: str) -> None:
    """End a ledger that another attempt would not help; its version goes without.

    Raises:
        LeaseLost: another claim has the ledger, or it is void.

    """
    _end(session, to_compute, LedgerStatus.FAILED, {"error": error})


def void(session: Session, version_id: UUID, reason: str) -> GradientLedger | None:
    """End a version's ledger for good; None if it has none, or none that is not void already.

    Whoever works on it loses the lease, and its file may be removed.
    """
    ids = session.scalars(select(GradientLedger.id).where(GradientLedger.version_id == version_id))
    rows = lifecycle.move(
        session,
        GradientLedger,
        ids.all(),
        LedgerStatus.VOID,
        values={"lease_expires_at": None},
        facts={"version": str(version_id), "reason": reason},
    )
    return rows[0] if rows else None


def find(session: Session, version_id: UUID) -> Kept | None:
    """Return a version's ledger if it is ready; the file has yet to be held against it."""
    row = session.execute(
        select(
            GradientLedger.digest,
            GradientLedger.weights_digest,
            GradientLedger.data_fingerprint,
            GradientLedger.recipe_fingerprint,
            GradientLedger.records,
        ).where(
            GradientLedger.version_id == version_id, GradientLedger.status == LedgerStatus.READY
        )
    ).one_or_none()
    return Kept(*row) if row is not None else None  # type: ignore[arg-type]  # ready rows have all


def _end(
    session: Session, to_compute: ToCompute, to: LedgerStatus, values: Mapping[str, object]
) -> GradientLedger:
    claimed = to_compute.claim
    try:
        return lifecycle.move_one(
            session,
            GradientLedger,
            claimed.id,
            to,
            *leasing.held_by(GradientLedger, claimed),
            values={"error": None, **values, "lease_expires_at": None, "finished_at": now()},
            facts={"version": str(to_compute.version_id), **values},
        )
    except IllegalMove as error:
        raise leasing.lost(GradientLedger, claimed) from error
