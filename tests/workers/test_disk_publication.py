"""Weights that vanish between their writing and their publication are never published."""

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.artifacts import ArtifactStore
from app.jobs import publication
from app.jobs.leases import Job
from app.scrub.service import scrub
from app.settings import settings
from app.tables import ModelVersion
from tests.app.scrubbing import make_old
from tests.patience import DAY
from workers import run

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


def test_weights_that_a_scrub_removed_before_a_row_named_them_are_made_again(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    real = publication.published_by

    def scrubbed(session: Session, job: Job) -> ModelVersion | None:
        # The worker stalled for days between the two; the clock is the files'.
        store = ArtifactStore(settings().artifacts_folder)
        for path in store.folder.glob("sha256/*/*"):
            make_old(path)
        report = scrub(store, DAY, remove_leftovers=True)
        assert len(report.leftovers) == 1
        assert report.is_clean
        return real(session, job)

    with monkeypatch.context() as patch:
        patch.setattr(publication, "published_by", scrubbed)
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], client.get("/v1/models/tiny/current").json()["number"]) == ("queued", 1)
    assert job["error"] == "StorageFailed: The new weights are gone from the artifact store."
    run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "published"
    assert client.get("/v1/models/tiny/current/weights").status_code == 200
