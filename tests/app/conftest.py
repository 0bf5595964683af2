"""Sets of references and deletion requests that several of these tests begin with."""

from collections.abc import Callable, Sequence
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.db import transaction
from app.derived import references
from app.derived.reference_losses import Losses
from app.tables import RegisteredModel
from tests.app.reference_sets import DIGEST, NONE, SAMPLES
from tests.app.withdrawals import Desk


@pytest.fixture
def planned(ready: Callable[..., UUID]) -> Callable[..., UUID]:
    """Plan references for a model that was trained on the samples; returns their set."""

    def make(name: str = "digits", count: int = 4, samples: Sequence[str] = SAMPLES) -> UUID:
        model_id = ready(name, samples, NONE)
        with transaction() as session:
            version_id = session.get_one(RegisteredModel, model_id).current_version_id
            assert version_id is not None
            begun = references.begin(session, model_id, version_id, count)
        assert begun is not None
        return begun.id

    return make


@pytest.fixture
def losses(digest: Callable[[str], bytes]) -> Callable[..., Losses]:
    """What a reference showed on samples and on holdout records."""

    def make(
        training: dict[str, float], holdout: dict[int, float] | None = None, group: str = "target"
    ) -> Losses:
        of_holdout = holdout or {}
        return Losses(
            group=group,  # type: ignore[arg-type]
            digests=[digest(sample) for sample in training],
            training=list(training.values()),
            positions=list(of_holdout),
            holdout=list(of_holdout.values()),
            records=3,
            weights_digest=DIGEST,
            seconds=1.5,
        )

    return make


@pytest.fixture
def submit(client: TestClient) -> Callable[..., str]:
    """Ask for samples to be forgotten; returns where the request is."""

    def send(*samples: str) -> str:
        answer = client.post("/v1/deletion-requests", json={"sample_ids": samples})
        assert answer.status_code == 202
        return answer.headers["Location"]

    return send


@pytest.fixture
def desk(client: TestClient, digest: Callable[[str], bytes]) -> Desk:
    """Where what was asked for can be withdrawn."""
    return Desk(client, digest)
