"""`lethe weights sign`: sign what has no good signature. Exit 0 all signed, 1 not all, 2 not run.

For versions from before weights were signed, and after somebody has seen to it that the weights
are those that are expected. No job signs its own parent.
"""

import argparse
import sys
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.artifacts import ArtifactStore
from app.audit import ledger
from app.db import is_migrated, transaction
from app.errors import StorageFailed
from app.keys import KeyRefused, weights_key
from app.settings import settings
from app.statuses import VersionStatus
from app.tables import ModelVersion, RegisteredModel
from workers import failures, signing
from workers.artifacts import Corrupted
from workers.signing import SignatureRefused

ALL_SIGNED, NOT_ALL, NOT_RUN = 0, 1, 2


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="lethe weights",
        description="Sign the current version of each model whose signature is missing or does "
        "not hold, with this worker's key, if the file is the one that the database names.",
        epilog="Exit status: 0 all are signed, 1 not all could be, 2 it could not be tried.",
    )
    parser.add_argument("action", choices=["sign"])
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Sign what has to be signed, say what was done, and return the exit status."""
    parse(arguments)
    try:
        if not is_migrated():
            problem = "The database has the tables of another version; migrate first."
        else:
            signing.introduce_key()
            return ALL_SIGNED if _sign_all() else NOT_ALL
    except KeyRefused as error:
        problem = str(error)
    except ValidationError as error:
        problem = f"The settings are not complete: {error}"
    except SQLAlchemyError as error:
        problem = f"The database does not answer ({type(error).__name__})."
    sys.stderr.write(f"could not sign: {problem}\n")
    return NOT_RUN


def _sign_all() -> bool:
    store = ArtifactStore(settings().artifacts_folder)
    with transaction() as session:
        rows = session.execute(
            select(RegisteredModel.name, ModelVersion.number, ModelVersion.id, ModelVersion.digest)
            .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
            .where(ModelVersion.status == VersionStatus.CURRENT)
            .order_by(RegisteredModel.name)
        ).all()
    all_signed = True
    for name, number, version_id, digest in rows:
        try:
            done = _sign(store, version_id, digest)
        except (Corrupted, StorageFailed, OSError) as error:
            done, all_signed = f"NOT SIGNED: {failures.describe(error)}", False
        sys.stdout.write(f"{name}, version {number}, {digest}: {done}\n")
    return all_signed


def _sign(store: ArtifactStore, version_id: UUID, digest: str) -> str:
    try:
        signing.verify_version(store, version_id, digest)
    except SignatureRefused as error:
        reason = str(error)
    else:
        return "signed already"
    signing.sign(store, digest)
    facts = {"digest": digest, "kid": weights_key().id, "reason": reason}
    with transaction() as session:
        ledger.append(session, [ledger.Entry("version.signed", version_id, facts)])
    return "signed"
