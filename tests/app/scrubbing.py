"""What tests of the scrub do to models, to their files and to what lies beside these."""

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app import lifecycle
from app.artifacts import ArtifactStore
from app.db import transaction
from app.registry import checking
from app.scrub import __main__ as program
from app.scrub.report import Report
from app.scrub.service import scrub
from app.settings import settings
from app.statuses import VersionStatus
from app.tables import ModelVersion, RegisteredModel

DAY = timedelta(days=1)
DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: _rewrite(path, path.read_bytes() + b"\0"),
    "altered": lambda path: _rewrite(path, _flip(path.read_bytes())),
}


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def check(model_id: UUID) -> ModelVersion:
    """Make a model ready without samples, as a worker does that saw its checkpoint."""
    with transaction() as session:
        to_check = checking.start_check(session, model_id, timedelta(minutes=1))
        assert to_check is not None
        size_bytes = store().path_of(to_check.checkpoint_digest).stat().st_size
        found = checking.Found(0, "sha256:" + "0" * 64, "key", size_bytes)
        return checking.accept(session, to_check, found)


def publish(parent: ModelVersion, content: bytes) -> ModelVersion:
    """Make other weights current, as a job does."""
    stored = store().put([content])
    with transaction() as session:
        withdraw(parent.id, session)
        version = ModelVersion(
            model_id=parent.model_id,
            number=parent.number + 1,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            parent_id=parent.id,
        )
        lifecycle.begin(session, version, {})
        session.get_one(RegisteredModel, parent.model_id).current_version_id = version.id
        return version


def withdraw(version_id: UUID, session: Any) -> None:
    lifecycle.move_one(session, ModelVersion, version_id, VersionStatus.WITHDRAWN)


def purge(version: ModelVersion) -> None:
    with transaction() as session:
        lifecycle.move_one(session, ModelVersion, version.id, VersionStatus.PURGED)


def damage(digest: str, how: str) -> Path:
    path = store().path_of(digest)
    DAMAGES[how](path)
    return path


def make_old(path: Path, age: timedelta = 2 * DAY) -> None:
    at = time.time() - age.total_seconds()
    os.utime(path, (at, at))


def orphan(content: bytes = b"of a superseded attempt") -> str:
    """Store a file that nobody refers to, two days ago."""
    digest = store().put([content]).digest
    make_old(store().path_of(digest))
    return digest


def look(**options: Any) -> Report:
    return scrub(store(), DAY, **options)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the program in this process; returns its exit status and what it printed."""
    capsys.readouterr()
    status = program.main(list(arguments))
    return status, capsys.readouterr().out


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status, printed = run(capsys, "--json", *arguments)
    return status, json.loads(printed)


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
