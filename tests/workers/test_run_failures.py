"""A job whose worker dies, is overtaken or meets an error, up to the end that it has."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import leases, outcome, publication
from app.settings import settings
from app.tables import UnlearningJob
from tests.patience import DAY, tries
from workers import run

FORGOTTEN = tuple(f"person-{index}" for index in range(40))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the worker may catch it."""


def requests(client: TestClient) -> list[Any]:
    return client.get("/v1/deletion-requests").json()["items"]


def versions(client: TestClient) -> list[Any]:
    return client.get("/v1/models/tiny/versions").json()["items"]


def die_and_be_swept() -> None:
    with transaction() as session:
        session.execute(
            update(UnlearningJob).values(lease_expires_at=text("now() - interval '1 second'"))
        )
    with transaction() as session:
        outcome.expire(session, tries(5), DAY)


POINTS = {
    "right after the claim": ("workers.run.climb", "before"),
    "while the model is trained": ("workers.unlearning.retrain.Retrain.unlearn", "before"),
    "after a rung": ("app.jobs.outcome.record", "after"),
    "before the weights are written": ("workers.run.dump_state", "before"),
    "before the weights have their name": ("os.replace", "before"),
    "after the weights are written": ("app.artifacts.Incoming.keep", "after"),
    "in the publishing transaction": ("app.jobs.publication._withdraw_parent", "after"),
    "at the end of the publishing transaction": ("app.jobs.publication.settle", "after"),
}


@pytest.mark.parametrize(("point", "when"), POINTS.values(), ids=POINTS)
def test_a_worker_killed_at_any_point_leaves_one_version_in_the_end(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    when: str,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    with monkeypatch.context() as patch:
        owner, name = point.rsplit(".", 1)
        original = pytest.importorskip(owner) if owner == "os" else _resolve(owner)
        real = getattr(original, name)

        def die(*args: Any, **kwargs: Any) -> None:
            if when == "after":
                real(*args, **kwargs)
            raise Killed

        patch.setattr(original, name, die)
        with pytest.raises(Killed):
            run.run(job_id)
    assert [v["number"] for v in versions(client)] == [1]
    assert [r["status"] for r in requests(client)] == ["in_progress"]
    die_and_be_swept()
    run.run(job_id)
    assert [v["number"] for v in versions(client)] == [1, 2]
    assert [r["status"] for r in requests(client)] == ["completed"]
    assert client.get(f"/v1/jobs/{job_id}").json()["attempts"] == 2


def _resolve(path: str) -> Any:
    from importlib import import_module

    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, name = path.rsplit(".", 1)
        return getattr(import_module(module), name)


def test_a_killed_jobs_second_attempt_makes_the_same_weights(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    stored: list[str] = []
    keep = publication.publish

    def note(session: Any, job: Any, new: Any, rungs: Any) -> Any:
        stored.append(new.digest)
        if len(stored) == 1:
            raise Killed
        return keep(session, job, new, rungs)

    monkeypatch.setattr(publication, "publish", note)
    with pytest.raises(Killed):
        run.run(job_id)
    die_and_be_swept()
    run.run(job_id)
    assert len(stored) == 2
    assert stored[0] == stored[1] == client.get("/v1/models/tiny/current").json()["digest"]


def test_a_worker_whose_lease_was_stolen_stops_and_publishes_nothing(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    train = recipe.train

    def stall(model: Any, dataset: Any, seed: int) -> None:
        # While this worker trains, its lease runs out and another one takes the job.
        monkeypatch.setattr(recipe, "train", train)
        die_and_be_swept()
        with transaction() as session:
            assert leases.claim(session, job_id, "thief", settings().lease) is not None
        train(model, dataset, seed)

    monkeypatch.setattr(recipe, "train", stall)
    run.run(job_id)
    assert [v["number"] for v in versions(client)] == [1]
    with transaction() as session:
        job = session.get_one(UnlearningJob, job_id)
        assert (job.status, job.worker, job.fence) == ("running", "thief", 2)


def test_an_exception_of_the_recipe_is_tried_again_and_never_quoted(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)

    def fail(*_: Any) -> None:
        raise KeyError("person-7")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "train", fail)
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "queued"
    assert "KeyError" in job["error"]
    assert "person-7" not in job["error"] + "".join(capfd.readouterr())
    run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "published"


def test_a_job_gives_up_after_its_attempts(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    serve()
    job_id = job_for(*FORGOTTEN)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recipe, "train", fail)
    for _ in range(3):
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert [r["status"] for r in requests(client)] == ["needs_attention"]


def test_data_that_changed_since_registration_end_the_job(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID], recipe: Any
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    recipe.ids = recipe.ids[::-1]
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert "register the model anew" in job["error"]


def test_another_id_key_ends_the_job(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    reread: Callable[[str, str], None],
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    reread("LETHE_ID_KEY", "another-" + "c" * 32)
    run.run(job_id)
    assert "LETHE_ID_KEY" in client.get(f"/v1/jobs/{job_id}").json()["error"]


@pytest.mark.parametrize("damage", ["altered", "cut off", "gone"])
def test_damaged_parent_weights_end_the_job_and_stay_current(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    stored: str,
    damage: str,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    path = ArtifactStore(settings().artifacts_folder).find(stored)
    assert path is not None
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] if damage == "cut off" else content[:-1] + b"!")
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert stored in job["error"]
    assert [v["status"] for v in versions(client)] == ["current"]
