"""A job that runs out of memory takes fewer records at a time; only then is it a failure."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient

from app.db import transaction
from app.tables import UnlearningJob
from lethe.policy import MethodOptions, NablaTauOptions
from tests.workers.conftest import EXACT
from workers import run

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


def limits_of(client: TestClient, job_id: UUID, attempts: int) -> list[int | None]:
    """Run a job until it ends; return what limited each attempt's steps, as it waited."""
    seen = []
    for _ in range(attempts):
        with transaction() as session:
            job = session.get_one(UnlearningJob, job_id)
        if job.status != "queued":
            break
        seen.append(job.batch_limit)
        run.run(job_id)
    return seen


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_steps_are_halved_until_they_fit_and_no_failure_is_counted(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    losses = recipe.losses

    def tight(model: Any, batch: Any) -> Any:
        if len(batch[1]) > 16:
            raise error("person-1")
        return losses(model, batch)

    monkeypatch.setattr(recipe, "losses", tight)
    # From the largest step that any method of the policy takes.
    assert limits_of(client, job_id, 20) == [None, 256, 128, 64, 32, 16]
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"], job["failures"]) == ("published", 6, 0)
    assert recipe.batch_size == 32  # other jobs' steps are as long as before


def test_a_job_that_does_not_fit_at_all_fails_and_says_so(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    small = MethodOptions(nabla_tau=NablaTauOptions(batch_size=4))
    serve(EXACT.model_copy(update={"options": small}))
    job_id = job_for(*FORGOTTEN)

    def full(*_: Any) -> None:
        raise MemoryError("person-1")

    monkeypatch.setattr(recipe, "batch_size", 4)
    monkeypatch.setattr(recipe, "losses", full)
    assert limits_of(client, job_id, 20) == [None, 2, 1, 1]
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["failures"]) == ("failed", 2)
    assert job["error"].startswith("Gave up after 2 attempts: MemoryError in ")
    (request,) = client.get("/v1/deletion-requests").json()["items"]
    assert request["status"] == "needs_attention"


def test_any_other_error_leaves_the_steps_as_they_are(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)

    def fail(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "losses", fail)
        run.run(job_id)
    assert limits_of(client, job_id, 20) == [None]
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["failures"]) == ("published", 1)
