"""What a job came to is written through a database that restarts or is not heard of meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import stamina
from fastapi.testclient import TestClient
from psycopg import sql
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app import db
from app.errors import LeaseLost
from app.jobs import outcome, publication
from embedded.servers import Servers
from workers import run, stopping
from workers.heartbeat import Heartbeat
from workers.perseverance import while_held

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
PATIENCE_SECONDS = 30
GONE = OperationalError("", {}, Exception("the server closed the connection"))


@pytest.fixture
def held() -> Iterator[Heartbeat]:
    """A lease that lasts."""
    with Heartbeat(lambda _: None, timedelta(minutes=1), "a job") as heartbeat:
        yield heartbeat


@pytest.fixture
def _without_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1_000):
        yield


@pytest.mark.usefixtures("_without_pauses")
def test_a_write_is_repeated_while_the_database_does_not_answer(held: Heartbeat) -> None:
    answers: list[Exception | None] = [GONE] * 100 + [None]

    def write() -> str:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "written"

    assert while_held(held, write) == "written"
    assert answers == []


@pytest.mark.usefixtures("_without_pauses")
@pytest.mark.parametrize(
    "error", [LeaseLost("x"), IntegrityError("", {}, Exception()), ValueError("x")]
)
def test_an_error_that_would_come_again_is_not_repeated(held: Heartbeat, error: Exception) -> None:
    calls = []

    def write() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        while_held(held, write)
    assert len(calls) == 1


@pytest.mark.usefixtures("_without_pauses")
def test_a_write_is_given_up_when_the_lease_is_lost() -> None:
    calls, lost = [], threading.Event()

    def renew(_: object) -> None:
        if lost.is_set():
            raise LeaseLost("x")

    with Heartbeat(renew, timedelta(milliseconds=40), "a job") as heartbeat:

        def write() -> None:
            calls.append(1)
            if len(calls) == 3:
                lost.set()
                heartbeat._thread.join(PATIENCE_SECONDS)  # noqa: SLF001  # it ends with the lease
            raise GONE

        with pytest.raises(LeaseLost):
            while_held(heartbeat, write)
    assert len(calls) == 3


@pytest.fixture
def job_id(
    serve: Callable[..., UUID], job_for: Callable[..., UUID], reread: Callable[[str, str], None]
) -> UUID:
    """A job that waits, whose lease outlasts a restart of the database on any machine."""
    reread("LETHE_LEASE", "60")
    serve()
    return job_for(*FORGOTTEN)


@pytest.fixture
def postgres(servers: Servers, environment: dict[str, str]) -> Iterator[Any]:
    """The server of all tests; what this test's database commits survives a crash of it."""
    name = environment["LETHE_DATABASE_URL"].rsplit("/", 1)[1]
    with servers.postgres.connect_as_admin() as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(sql.Identifier(name))
        )
        # The copy that the database is was not synchronous itself.
        admin.execute("CHECKPOINT")
    yield servers.postgres
    servers.postgres.restart()


def assert_published_once(client: TestClient, job_id: UUID) -> None:
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"], job["failures"]) == ("published", 1, 0)
    assert [rung["outcome"] for rung in job["rungs"]] == ["passed"]
    versions = client.get("/v1/models/tiny/versions").json()["items"]
    assert [version["number"] for version in versions] == [1, 2]
    (request,) = client.get("/v1/deletion-requests").json()["items"]
    assert request["status"] == "completed"


@pytest.mark.parametrize(
    ("owner", "name", "writer"),
    [(outcome, "record", "_record"), (publication, "publish", "_publish")],
    ids=["recording", "publishing"],
)
def test_a_database_killed_before_the_commit_gets_the_same_attempt_once_it_is_back(
    postgres: Any,  # first, since it changes what later connections do
    client: TestClient,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    writer: str,
) -> None:
    real, write = getattr(owner, name), getattr(run, writer)
    kills, writes = [], []

    def kill(*args: Any) -> Any:
        result = real(*args)
        if not kills:
            kills.append(postgres.kill())
        return result

    def come_back(*args: Any) -> None:
        writes.append(1)
        if len(writes) == 3:  # the second found nobody to connect to
            postgres.start()
        write(*args)

    monkeypatch.setattr(owner, name, kill)
    monkeypatch.setattr(run, writer, come_back)
    run.run(job_id)
    assert len(writes) == 3
    assert_published_once(client, job_id)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the answer to one commit of a run be lost, the first being that of its claim."""
    count = []

    def lose(number: int) -> None:
        @contextmanager
        def transaction() -> Iterator[Session]:
            with db.transaction() as session:
                yield session
            count.append(1)
            if len(count) == number:
                raise GONE

        monkeypatch.setattr(run, "transaction", transaction)

    return lose


@pytest.mark.parametrize("number", [2, 3], ids=["recording", "publishing"])
def test_a_commit_that_nobody_heard_of_is_not_repeated(
    client: TestClient,
    job_id: UUID,
    unheard: Callable[[int], None],
    capfd: pytest.CaptureFixture[str],
    number: int,
) -> None:
    unheard(number)
    run.run(job_id)
    assert_published_once(client, job_id)
    logged = "".join(capfd.readouterr())
    # The worker knows that the version is its own, and not another claim's.
    assert logged.count('"version.published"') == 1
    assert "job.superseded" not in logged


@pytest.mark.parametrize(
    ("error", "failures"), [(OSError(5, "x"), 1), (stopping.Stopping(), 0), (MemoryError(), 0)]
)
def test_a_job_whose_giving_back_nobody_heard_of_is_given_back_once(
    client: TestClient,
    job_id: UUID,
    unheard: Callable[[int], None],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    failures: int,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(recipe, "train", fail)
    unheard(2)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"], job["failures"]) == ("queued", 1, failures)


def test_a_claim_that_nobody_heard_of_is_swept(
    client: TestClient, job_id: UUID, unheard: Callable[[int], None]
) -> None:
    unheard(1)
    with pytest.raises(OperationalError):
        run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "running"
