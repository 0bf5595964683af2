"""A small life of the service in a real database, as the checker finds it: nothing is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from fastapi.testclient import TestClient

from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import publication
from app.jobs.publication import NewVersion
from app.settings import settings
from tests.app.working import NOW, PASSED, expire, hold, let_leases_run_out, plan, record
from tests.chaos.history import Asked, History

SAMPLES = tuple(f"MARK-{n}" for n in range(8))
RECIPE = "digits"


@dataclass(frozen=True, slots=True)
class Life:
    """What its clients know, and where its things are."""

    connection: psycopg.Connection[Any]
    url: str
    history: History
    artifacts: Path
    traces: Path
    digests: list[bytes]
    """Of the model's records, in their order."""
    id_key: bytes


def run_job(robbed: bool) -> None:
    """Plan a job and publish it; ``robbed`` of its lease, it is claimed twice."""
    [job_id] = plan()
    job = hold(job_id)
    if robbed:
        let_leases_run_out()
        expire()
        job = hold(job_id)
    record(job)
    stored = ArtifactStore(settings().artifacts_folder).put([str(job.id).encode()])
    new = NewVersion(stored.digest, stored.size_bytes, "iau", "approximate", "passed", 0.25)
    with transaction() as session:
        publication.publish(session, job, new, [PASSED])


@pytest.fixture
def life(
    environment: dict[str, str],
    client: TestClient,
    ready: Callable[..., UUID],
    digest: Callable[[str], bytes],
    tmp_path: Path,
) -> Iterator[Life]:
    """Two published jobs, one of them claimed twice, one request withdrawn, one about nobody."""
    ready(RECIPE, SAMPLES, NOW)
    history = History()

    def submit(key: str, *sample_ids: str) -> str:
        asked = Asked(key, sample_ids, None)
        history.ask(asked)
        answer = client.post(
            "/v1/deletion-requests", json=asked.body, headers={"Idempotency-Key": key}
        )
        history.accept(key, answer.json()["id"])
        return str(answer.json()["id"])

    submit("first", *SAMPLES[:2])
    run_job(robbed=True)
    withdrawn = submit("withdrawn", SAMPLES[4])
    history.withdrawals.add(withdrawn)
    told = client.post(f"/v1/deletion-requests/{withdrawn}/cancel").json()
    history.withdraw(withdrawn, told["cancelled"], told["too_late"])
    submit("second", *SAMPLES[1:4])
    run_job(robbed=False)
    submit("nobody", "MARK-x")
    head = client.get("/v1/audit/head").json()
    history.see_head(head["size"], head["root_hash"])
    traces = tmp_path / "traces"
    traces.mkdir()
    url = environment["LETHE_DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        shown = [0b11111100, 0b11111100]
        seeds = connection.execute("SELECT seed FROM unlearning_jobs ORDER BY created_at")
        lines = [
            f"{seed} {kind} {records:x}"
            for (seed,), kind, records in zip(seeds, ("retained", "trained"), shown, strict=True)
        ]
        (traces / "1").write_text("\n".join(lines) + "\n12 ret")
        yield Life(
            connection,
            url,
            history,
            settings().artifacts_folder,
            traces,
            [digest(sample_id) for sample_id in SAMPLES],
            settings().required_id_key(),
        )
