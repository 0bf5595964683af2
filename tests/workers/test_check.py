"""Checking a registered model: ready with its manifest, or rejected with every reason."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update

from app.artifacts import ArtifactStore
from app.db import transaction
from app.errors import LeaseLost
from app.registry import checking
from app.registry import service as registry
from app.settings import settings
from app.tables import ManifestEntry, RegisteredModel
from lethe.policy import Policy
from workers import check
from workers.artifacts import dump_state


@pytest.fixture
def registered(client: TestClient) -> Callable[[str], UUID]:
    """Register a model with a checkpoint of this digest, unchecked."""

    def make(digest: str) -> UUID:
        with transaction() as session:
            return registry.register(session, "tiny", "tiny", digest, Policy()).id

    return make


def model(client: TestClient) -> Any:
    return client.get("/v1/models/tiny").json()


def test_a_sound_model_becomes_ready_with_its_manifest(
    client: TestClient,
    registered: Callable[[str], UUID],
    stored: str,
    digest: Callable[[str], bytes],
) -> None:
    model_id = registered(stored)
    check.check(model_id)
    found = model(client)
    assert (found["status"], found["sample_count"]) == ("ready", 120)
    assert found["current"] == {"number": 1, "digest": stored, "guarantee": None, "verdict": None}
    with transaction() as session:
        manifest = set(session.scalars(select(ManifestEntry.sample_digest)))
    assert manifest == {digest(f"person-{index}") for index in range(120)}


def test_a_model_is_rejected_with_all_its_problems(
    client: TestClient,
    registered: Callable[[str], UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = dump_state({"weight": torch.full((3, 2), float("nan"))})
    digest = ArtifactStore(settings().artifacts_folder).put([wrong]).digest
    recipe.ids = ("person-1",) * 119
    monkeypatch.setattr(recipe, "losses", lambda model, batch: model(batch[0]).mean())
    check.check(registered(digest))
    found = model(client)
    assert found["status"] == "rejected"
    assert len({problem["code"] for problem in found["problems"]}) >= 4
    assert "person-1" not in str(found)
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(ManifestEntry)) == 0


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_checkpoint_that_was_altered_after_its_upload_is_refused(
    client: TestClient, registered: Callable[[str], UUID], stored: str, damage: str
) -> None:
    path = ArtifactStore(settings().artifacts_folder).find(stored)
    assert path is not None
    content = path.read_bytes()
    path.unlink()
    if damage == "altered":
        path.write_bytes(content[:-1] + b"!")
    check.check(registered(stored))
    found = model(client)
    assert found["status"] == "rejected"
    assert [problem["code"] for problem in found["problems"]] == ["checkpoint.unusable"]


def test_a_recipe_that_is_not_installed_is_named_with_those_that_are(client: TestClient) -> None:
    with transaction() as session:
        stored = ArtifactStore(settings().artifacts_folder).put([dump_state({"a": torch.ones(1)})])
        model_id = registry.register(session, "tiny", "nowhere", stored.digest, Policy()).id
    check.check(model_id)
    found = model(client)
    assert found["status"] == "rejected"
    assert "digits" in found["problems"][0]["message"]


def test_a_check_that_is_under_way_is_not_done_twice(
    client: TestClient, registered: Callable[[str], UUID], stored: str
) -> None:
    model_id = registered(stored)
    with transaction() as session:
        assert checking.start_check(session, model_id, settings().lease) is not None
        assert checking.unchecked(session) == []
    check.check(model_id)
    assert model(client)["status"] == "checking"
    with transaction() as session:  # its worker dies
        session.execute(
            update(RegisteredModel).values(check_lease_expires_at=text("now() - interval '1s'"))
        )
    with transaction() as session:
        assert checking.unchecked(session) == [model_id]
    check.check(model_id)
    assert model(client)["status"] == "ready"


def test_a_check_that_keeps_failing_is_given_up_with_the_reason(
    client: TestClient,
    registered: Callable[[str], UUID],
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    model_id = registered(stored)

    def fail(*_: Any) -> None:
        raise OSError(5, "person-1")

    monkeypatch.setattr(check, "check_recipe", fail)
    check.check(model_id)
    assert model(client)["status"] == "checking"
    check.check(model_id)
    found = model(client)
    assert [problem["code"] for problem in found["problems"]] == ["check.failed"]
    assert "person-1" not in str(found)


def test_a_large_manifest_does_not_hold_up_the_intake_of_requests(
    client: TestClient, registered: Callable[[str], UUID], stored: str
) -> None:
    model_id = registered(stored)
    with transaction() as session:
        taken = checking.start_check(session, model_id, settings().lease)
    assert taken is not None
    with transaction() as session:
        checking.replace_manifest(session, taken, [bytes(32)])
        # In another connection, while the manifest is still being written:
        answer = client.post("/v1/deletion-requests", json={"sample_ids": ["person-1"]})
        assert answer.status_code == 202
        with transaction() as other:
            checking.renew_check(other, taken, settings().lease)


def test_an_attempt_that_was_superseded_changes_nothing(
    client: TestClient, registered: Callable[[str], UUID], stored: str
) -> None:
    model_id = registered(stored)
    with transaction() as session:
        late = checking.start_check(session, model_id, settings().lease)
        session.execute(
            update(RegisteredModel).values(check_lease_expires_at=text("now() - interval '1s'"))
        )
    assert late is not None
    with transaction() as session:
        taken = checking.start_check(session, model_id, settings().lease)
    assert taken is not None
    found = checking.Found(0, "sha256:" + "0" * 64, "k-0", 1)
    for act in (
        lambda session: checking.replace_manifest(session, late, [bytes(32)]),
        lambda session: checking.accept(session, late, found),
        lambda session: checking.reject(session, late, []),
        lambda session: checking.renew_check(session, late, None),
    ):
        with pytest.raises(LeaseLost), transaction() as session:
            act(session)
    assert model(client)["status"] == "checking"


def test_a_manifest_left_by_an_attempt_that_died_is_replaced(
    client: TestClient, registered: Callable[[str], UUID], stored: str
) -> None:
    model_id = registered(stored)
    with transaction() as session:
        died = checking.start_check(session, model_id, settings().lease)
        assert died is not None
        checking.replace_manifest(session, died, [bytes(32)])
        checking.renew_check(session, died, None)
    check.check(model_id)
    assert model(client)["sample_count"] == 120
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(ManifestEntry)) == 120
