"""After real jobs and purges, the store holds the current version's files and no others."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db import transaction
from app.derived import ledgers as rows
from app.scrub.service import scrub
from app.tables import GradientLedger, ModelVersion
from lethe.policy import Batching, Policy, References, Retention
from tests.patience import DAY
from tests.workers.gradient_ledgers import begin, files, kept, row, store
from workers import ledgers, run

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
KEPT_FOREVER = timedelta(days=364)


def policy(purge_after: timedelta) -> Policy:
    return Policy(
        batching=Batching(max_wait=timedelta(0)),
        ladder=("retrain",),
        references=References(count=0),
        retention=Retention(purge_after=purge_after),
    )


def current() -> ModelVersion:
    with transaction() as session:
        return session.scalars(select(ModelVersion).where(ModelVersion.status == "current")).one()


def names(*digests: str) -> set[str]:
    return {digest.removeprefix("sha256:") for digest in digests}


def with_signatures() -> set[str]:
    """The names of all files in the store, each without what follows a full stop."""
    return {name.partition(".")[0] for name in files()}


def purge() -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    tasks.purge()


@pytest.fixture
def ledger_of_the_parent(serve: Callable[..., UUID], request: pytest.FixtureRequest) -> UUID:
    """Of a served model's first version, which is kept for as long as the test says."""
    ledger_id = begin(serve(policy(request.param)))
    ledgers.refresh(ledger_id)
    return ledger_id


@pytest.mark.parametrize("ledger_of_the_parent", [timedelta(0)], indirect=True)
def test_after_the_purge_the_store_holds_the_current_versions_files_alone(
    client: TestClient, ledger_of_the_parent: UUID, job_for: Callable[..., UUID]
) -> None:
    first, summed = current(), kept(ledger_of_the_parent)
    run.run(job_for(*FORGOTTEN))
    second = current()
    assert names(first.digest, summed.digest, second.digest) <= files()
    purge()
    assert with_signatures() == names(second.digest)
    assert client.get("/v1/models/tiny/versions/1/weights").status_code == 410
    assert client.get("/v1/models/tiny/current/weights").status_code == 200
    report = scrub(store(), DAY)
    assert (report.damaged, report.leftovers, report.foreign) == ((), (), ())
    # The chain goes on from what is left.
    run.run(job_for("person-99"))
    assert current().number == 3
    purge()
    assert with_signatures() == names(current().digest)


@pytest.mark.parametrize("ledger_of_the_parent", [KEPT_FOREVER], indirect=True)
def test_until_then_what_a_repetition_of_the_job_needs_is_there(
    ledger_of_the_parent: UUID, job_for: Callable[..., UUID], recipe: Any
) -> None:
    first, summed = current(), kept(ledger_of_the_parent)
    run.run(job_for(*FORGOTTEN))
    assert ledgers.remove_void(store()) == 0
    purge()
    assert names(first.digest, summed.digest) <= files()
    assert row(ledger_of_the_parent).status == "void"
    with transaction() as session:
        assert rows.find(session, first.id) is None


def test_the_ledger_of_a_version_that_was_never_ready_goes_at_once(
    serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    ledger_id = begin(serve(policy(KEPT_FOREVER)))
    announced = store().put([b"half a sum"]).digest
    with transaction() as session:
        session.get_one(GradientLedger, ledger_id).digest = announced
    run.run(job_for(*FORGOTTEN))
    assert row(ledger_id).status == "void"
    assert ledgers.remove_void(store()) == 1
    assert store().find(announced) is None
