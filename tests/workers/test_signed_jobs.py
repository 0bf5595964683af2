"""Weights are signed where they enter, and no work starts from any without a good signature."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    generate_private_key,
)
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import keys
from app.artifacts import ArtifactStore
from app.audit import published
from app.db import transaction
from app.keys import Purpose, weights_key
from app.settings import settings
from app.tables import AuditEntry, ModelVersion, PublishedKey
from tests.workers.gradient_ledgers import begin, row
from workers import ladder, ledgers, run, sign_weights, signing
from workers.signing import SignatureRefused

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def checked_by_the_official_program(model: Path, signature: Path, public: Path) -> bool:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model)]
    options = ["--signature", str(signature), "--public_key", str(public)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert ("Verification succeeded" in done.stdout) == (done.returncode == 0)
    return done.returncode == 0


def test_what_is_downloaded_is_verified_by_the_official_program_under_any_name(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID], tmp_path: Path
) -> None:
    serve()
    run.run(job_for(*FORGOTTEN))
    model, signature, public = (tmp_path / name for name in ("bought.bin", "its.sig", "key.pem"))
    model.write_bytes(client.get("/v1/models/tiny/current/weights").content)
    answer = client.get("/v1/models/tiny/versions/2/signature")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    signature.write_bytes(answer.content)
    with transaction() as session:
        public.write_text(session.scalars(select(PublishedKey.public_pem)).one())
    assert checked_by_the_official_program(model, signature, public)
    model.write_bytes(model.read_bytes() + b"\0")
    assert not checked_by_the_official_program(model, signature, public)


def test_every_version_is_signed_by_a_published_key_before_it_is_published(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []
    publish = run.publication.publish

    def look(session: Any, job: Any, new: Any, rungs: Any) -> Any:
        signing.verify(store(), new.digest, published.published(session, Purpose.WEIGHTS), LONG_AGO)
        seen.append(True)
        return publish(session, job, new, rungs)

    monkeypatch.setattr(run.publication, "publish", look)
    serve()
    run.run(job_for(*FORGOTTEN))
    with transaction() as session:
        versions = session.execute(select(ModelVersion.id, ModelVersion.digest)).all()
    assert (len(versions), seen) == (2, [True])
    for version_id, digest in versions:
        signing.verify_version(store(), version_id, digest)


def test_a_job_whose_parent_is_not_signed_fails_at_once_and_says_what_to_do(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    stored: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve()
    store().signature_path_of(stored).unlink()
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"], job["rungs"]) == ("failed", 1, [])
    assert "has no signature" in job["error"]
    assert "lethe weights sign" in job["error"]
    assert client.get("/v1/models/tiny/current/signature").status_code == 404

    capsys.readouterr()
    assert sign_weights.main(["sign"]) == 0
    assert capsys.readouterr().out == f"tiny, version 1, {stored}: signed\n"
    with transaction() as session:
        event = AuditEntry.event == "version.signed"
        payload = json.loads(session.scalars(select(AuditEntry.payload).where(event)).one())
    assert (payload["facts"]["digest"], payload["facts"]["kid"]) == (stored, weights_key().id)
    assert client.get("/v1/models/tiny/current/signature").status_code == 200
    retried = client.post(f"/v1/jobs/{job_id}/retry")
    assert retried.status_code < 300
    assert sign_weights.main(["sign"]) == 0
    assert "signed already" in capsys.readouterr().out


def test_what_is_not_as_the_database_says_is_signed_for_nobody(
    serve: Callable[..., UUID], stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serve()
    path = store().path_of(stored)
    content = path.read_bytes()
    path.chmod(0o640)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = store().signature_path_of(stored).read_bytes()
    capsys.readouterr()
    assert sign_weights.main(["sign"]) == 1
    assert "NOT SIGNED: Corrupted" in capsys.readouterr().out
    assert store().signature_path_of(stored).read_bytes() == before


def test_gradients_are_not_summed_at_weights_without_a_good_signature(
    serve: Callable[..., UUID], stored: str
) -> None:
    ledger_id = begin(serve())
    path = store().signature_path_of(stored)
    path.unlink()
    path.write_bytes(b"{}")
    ledgers.refresh(ledger_id)
    assert row(ledger_id).status == "failed"
    assert "SignatureRefused" in str(row(ledger_id).error)


def test_a_worker_with_a_retired_key_does_not_begin_a_job(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    serve()
    with transaction() as session:
        published.retire(session, weights_key().id)
    job_id = job_for(*FORGOTTEN)
    with monkeypatch.context() as patch:
        patch.setattr(ladder, "method_for", pytest.fail)
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["rungs"]) == ("queued", [])
    assert "KeyRefused: LETHE_WEIGHTS_KEY was retired" in job["error"]
    # What the retired key signed in its time is still good for the next one's job.
    reread("LETHE_WEIGHTS_KEY", keys.to_pem(generate_private_key(SECP256R1())))
    run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "published"
    with transaction() as session:
        late = datetime.now(UTC) - timedelta(hours=2)
        session.execute(
            update(PublishedKey).where(PublishedKey.retired_at.is_not(None)).values(retired_at=late)
        )
        first = session.scalars(select(ModelVersion).where(ModelVersion.number == 1)).one()
    with pytest.raises(SignatureRefused, match="had been retired before"):
        signing.verify_version(store(), first.id, first.digest)
