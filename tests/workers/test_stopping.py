"""A worker that is told to stop is gone within seconds, and its job waits for the next one."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app import queue
from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import leases, outcome
from app.registry import service as registry
from app.settings import settings
from app.tables import UnlearningJob
from embedded.commands import WORKER
from embedded.running import Running
from embedded.supervisor import ROOT, command_line
from tests.patience import tries
from tests.workers import stubborn_recipes
from tests.workers.conftest import EXACT
from tests.workers.installed_recipes import install
from workers import check, run, stopping
from workers.artifacts import dump_state

PATIENCE_SECONDS = 60.0
# What an orchestrator grants by default.
ORDER_SECONDS = 10.0
RECIPES = ("Patient", "Deaf", "Busy")


def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait for a condition; return how many seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "the condition never came true"
        time.sleep(0.02)  # the interval of a poll; the condition is above
    return time.monotonic() - started


def job_of(job_id: UUID) -> UnlearningJob:
    with transaction() as session:
        return session.get_one(UnlearningJob, job_id)


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def environ(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    """What a worker needs to find the recipes, which this process then finds, too."""
    packages = tmp_path / "packages"
    place = stubborn_recipes.__name__
    install(packages, {name.lower(): f"{place}:{name}" for name in RECIPES})
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv(stubborn_recipes.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("LETHE_LEASE", "PT1H")  # so that none runs out by itself
    settings.cache_clear()
    return {**os.environ, **WORKER.environment}


@pytest.fixture
def start(environ: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a worker on the jobs that wait, with this time limit on each."""
    with ExitStack() as running:

        def make(name: str = "worker", limit: str = "PT1H") -> Running:
            # What a job imports is there before it begins, so that no limit hits the import.
            worker = Running(
                name,
                [*command_line(WORKER, 0), "--include", "workers.run"],
                log=tmp_path / f"{name}.log",
                environment={**environ, "LETHE_JOB_TIME_LIMIT": limit},
                cwd=ROOT,
                grace_seconds=1.0,
            )
            running.callback(worker.kill)
            return worker

        yield make


@pytest.fixture
def job_with(environ: Mapping[str, str], job_for: Callable[..., UUID]) -> Callable[[str], UUID]:
    """Register the model of a recipe, and plan a job for one of its samples."""

    def make(recipe: str) -> UUID:
        model = getattr(stubborn_recipes, recipe)().build_model()
        stored = ArtifactStore(settings().artifacts_folder).put([dump_state(model.state_dict())])
        with transaction() as session:
            model_id = registry.register(
                session, recipe.lower(), recipe.lower(), stored.digest, EXACT
            ).id
        check.check(model_id)
        return job_for(f"{recipe}-3")

    return make


def child_that_trains(job_id: UUID, recipe: str) -> int:
    """Nudge workers until one trains for the job, as the sweep does; return its process."""
    begun = stubborn_recipes.sign(f"begun-{recipe}")

    def trains() -> bool:
        # A worker that trains already may hold one nudge more.
        if queue.depth(queue.JOBS_QUEUE) == 0 and job_of(job_id).status == "queued":
            queue.nudge(queue.RUN_JOB, job_id)
        return begun.exists() and begun.stat().st_size > 0

    until(trains)
    return int(begun.read_text())


def told_to_stop(workers: Sequence[Running], jobs: Collection[UUID]) -> float:
    """Send SIGTERM as an orchestrator does; return the seconds until the jobs were given back."""
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    took = until(lambda: all(job_of(job_id).status == "queued" for job_id in jobs))
    until(lambda: all(worker.poll() is not None for worker in workers))
    return took


def assert_given_back(job_id: UUID) -> None:
    job = job_of(job_id)
    assert (job.status, job.attempts, job.failures) == ("queued", 1, 0)
    assert (job.worker, job.lease_expires_at, job.not_before, job.error) == (None,) * 4


@pytest.fixture
def order() -> Iterator[Callable[[], None]]:
    """Order this process to stop, as a worker's main process does with its children."""
    before = signal.getsignal(stopping.SIGNAL)
    stopping.listen()
    yield lambda: os.kill(os.getpid(), stopping.SIGNAL)
    signal.signal(stopping.SIGNAL, before)
    stopping._child.requested = False  # noqa: SLF001  # for the tests after this one


def test_an_order_interrupts_what_may_be_interrupted_and_once(order: Callable[[], None]) -> None:
    went_on = []

    def work() -> None:
        try:
            order()
        finally:
            order()  # whoever cleans up is left alone
            went_on.append("cleaning up")
        went_on.append("working")

    with pytest.raises(stopping.Stopping), stopping.interruptible():
        work()
    order()
    assert went_on == ["cleaning up"]


def test_an_order_that_comes_before_the_work_keeps_it_from_beginning(
    order: Callable[[], None],
) -> None:
    order()
    with pytest.raises(stopping.Stopping), stopping.interruptible():
        raise AssertionError("it began")


def test_without_an_order_work_comes_to_its_end() -> None:
    with stopping.interruptible():
        done = True
    assert done


def test_whoever_is_about_to_be_killed_gives_back_its_own_jobs_alone(
    ready: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    ready("mine", ["a"], EXACT)
    job_id = job_for("a")
    with transaction() as session:
        assert leases.claim(session, job_id, "mine", timedelta(minutes=1)) is not None
    stopping.release_all_of("another")
    assert job_of(job_id).status == "running"
    with transaction() as session:
        session.get_one(UnlearningJob, job_id, with_for_update=True)
        stopping.release_all_of("mine")  # returns, although the row is held
    assert job_of(job_id).status == "running"
    stopping.release_all_of("mine")
    assert_given_back(job_id)


@pytest.mark.timeout(180)
def test_a_worker_in_training_gives_its_job_back_and_the_next_one_finishes_it(
    client: TestClient, job_with: Callable[[str], UUID], start: Callable[..., Running]
) -> None:
    job_id = job_with("Patient")
    worker = start()
    child = child_that_trains(job_id, "Patient")
    assert told_to_stop([worker], [job_id]) < stopping.GRACE_SECONDS  # nobody had to be killed
    assert not lives(child)
    assert_given_back(job_id)
    stubborn_recipes.sign("enough").touch()
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["attempts"], job["failures"]) == (2, 0)
    assert job["status"] in ("published", "refused")


@pytest.mark.timeout(180)
def test_a_worker_that_cannot_be_told_is_killed_in_time_and_its_job_is_given_back(
    job_with: Callable[[str], UUID], start: Callable[..., Running]
) -> None:
    # Both at once, since each takes the whole time of grace.
    jobs = {recipe: job_with(recipe) for recipe in ("Deaf", "Busy")}
    workers = [start(f"worker-{number}") for number in range(len(jobs))]
    children = [child_that_trains(job_id, recipe) for recipe, job_id in jobs.items()]
    took = told_to_stop(workers, jobs.values())
    assert stopping.GRACE_SECONDS <= took < ORDER_SECONDS
    assert not any(map(lives, children))
    for job_id in jobs.values():
        assert_given_back(job_id)


@pytest.mark.timeout(180)
def test_a_job_that_hangs_is_stopped_by_another_process_and_says_why(
    client: TestClient, job_with: Callable[[str], UUID], start: Callable[..., Running]
) -> None:
    job_id = job_with("Busy")
    worker = start(limit="PT2S")
    child = child_that_trains(job_id, "Busy")
    until(lambda: not lives(child))
    assert worker.poll() is None

    def swept() -> bool:
        with transaction() as session:
            outcome.expire(session, tries(5), timedelta(seconds=2))
        return job_of(job_id).status == "queued"

    until(swept)  # its lease would have lasted
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["attempts"], job["failures"]) == (1, 1)
    assert job["error"] == "The job ran longer than 0:00:02 and was stopped."
    # The worker has another child, which works.
    stubborn_recipes.sign("begun-Busy").unlink()
    stubborn_recipes.sign("enough").touch()
    queue.nudge(queue.RUN_JOB, job_id)
    until(lambda: job_of(job_id).status in ("published", "refused"))
