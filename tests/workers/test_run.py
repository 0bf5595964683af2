"""One job from claim to publication or refusal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import leases
from app.settings import settings
from app.tables import UnlearningJob
from lethe.policy import Policy
from workers import ladder, run
from workers.artifacts import load_state
from workers.unlearning.contract import Context, Unlearned
from workers.unlearning.weights import state_on_cpu

CLIMBING = Policy.model_validate({"batching": {"max_wait": 0}, "references": {"count": 0}})
FORGOTTEN = tuple(f"person-{index}" for index in range(40))


def requests(client: TestClient) -> list[Any]:
    return client.get("/v1/deletion-requests").json()["items"]


def versions(client: TestClient) -> list[Any]:
    return client.get("/v1/models/tiny/versions").json()["items"]


def test_a_job_publishes_a_version_whose_weights_are_in_the_store(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "published", job
    assert [(r["method"], r["outcome"]) for r in job["rungs"]] == [("retrain", "passed")]
    names = [check["name"] for check in job["rungs"][0]["verdict"]["checks"]]
    assert names == ["changed", "forgotten.loss", "useful.retain", "useful.holdout"]
    current = client.get("/v1/models/tiny/current").json()
    assert (current["number"], current["guarantee"]) == (2, "exact")
    path = ArtifactStore(settings().artifacts_folder).find(current["digest"])
    assert path is not None
    assert set(load_state(path, current["digest"])) == {"weight", "bias"}
    assert [r["status"] for r in requests(client)] == ["completed"]


def test_the_retain_set_is_without_all_that_was_ever_forgotten(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[set[tuple[float, ...]]] = []
    train = recipe.train

    def spy(model: Any, dataset: Any, seed: int) -> None:
        seen.append({tuple(dataset[i][0].tolist()) for i in range(len(dataset))})
        train(model, dataset, seed)

    serve()
    monkeypatch.setattr(recipe, "train", spy)
    run.run(job_for(*FORGOTTEN))
    run.run(job_for(*(f"person-{index}" for index in range(40, 80))))
    points = [tuple(point.tolist()) for point, _ in recipe.training_data()]
    assert seen == [set(points[40:]), set(points[80:])]
    assert [v["number"] for v in versions(client)] == [1, 2, 3]


class _Nothing:
    name = "nothing"

    def unlearn(self, model: Any, forget: Any, retain: Any, holdout: Any, context: Context) -> Any:
        return Unlearned(state_on_cpu(model), "approximate", {})


def test_a_method_that_does_nothing_is_refused_and_nothing_is_published(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    monkeypatch.setattr(ladder, "method_for", lambda *_: _Nothing())
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "refused"
    failed = [c["name"] for c in job["rungs"][0]["verdict"]["checks"] if c["outcome"] != "passed"]
    assert "changed" in failed
    assert [v["status"] for v in versions(client)] == ["current"]
    assert [r["status"] for r in requests(client)] == ["needs_attention"]


def test_the_ladder_is_climbed_to_the_first_rung_that_passes(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(CLIMBING)
    real = ladder.method_for
    monkeypatch.setattr(
        ladder, "method_for", lambda name, o: _Nothing() if name == "iau" else real("retrain", o)
    )
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    rungs = client.get(f"/v1/jobs/{job_id}").json()["rungs"]
    assert [(r["method"], r["outcome"]) for r in rungs] == [
        ("iau", "failed"),
        ("nabla_tau", "passed"),
    ]
    entries = client.get("/v1/audit/entries", params={"limit": 200}).json()["items"]
    published = [e["entry"] for e in entries if '"event":"version.current"' in e["entry"]][-1]
    assert '"method":"iau"' in published  # also what failed is evidence


def test_a_batch_too_small_to_show_anything_climbs_to_the_exact_method(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    serve(CLIMBING)
    job_id = job_for("person-1", "person-2")
    run.run(job_id)
    rungs = client.get(f"/v1/jobs/{job_id}").json()["rungs"]
    assert [r["method"] for r in rungs] == ["iau", "nabla_tau", "retrain"]
    assert [r["outcome"] for r in rungs] == ["inconclusive", "inconclusive", "passed"]
    notes = [
        c["note"] for r in rungs[:2] for c in r["verdict"]["checks"] if c["outcome"] != "passed"
    ]
    assert any("too little power" in note for note in notes)


def test_a_job_that_is_not_queued_is_left_alone(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    run.run(job_id)  # the nudge came twice
    assert [v["number"] for v in versions(client)] == [1, 2]
    with transaction() as session:
        assert session.scalar(select(UnlearningJob.attempts)) == 1


def test_the_job_a_worker_holds_is_frozen(
    serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    serve()
    with transaction() as session:
        job = leases.claim(session, job_for(*FORGOTTEN), "test", settings().lease)
    assert job is not None
    assert replace(job) == job
    with pytest.raises(AttributeError):
        job.fence = 9  # type: ignore[misc]
