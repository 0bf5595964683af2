"""`lethe rerun`: a process of its own, an answer, an exit status, and an entry in the log."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.db import transaction
from app.tables import JobRecord, ModelVersion, Rung, UnlearningJob
from tests.workers.conftest import EXACT
from tests.workers.rerun.repeating import (
    FORGOTTEN,
    changed,
    parent,
    publish,
    purge,
    record,
    reports,
    serve,
)
from workers import rerun, rerun_job


@pytest.fixture
def published(packages: Path, job_for: Callable[..., UUID]) -> Callable[[str], UUID]:
    """Publish a version of a recipe's model; return its job."""

    def make(recipe: str) -> UUID:
        serve(recipe, EXACT)
        return publish(job_for(*FORGOTTEN))

    return make


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat in this process what has no need of another one."""

    def repeat(job_id: UUID) -> object:
        reader, writer = os.pipe()
        rerun_job.main([str(job_id), str(writer)])
        with os.fdopen(reader) as told:
            return json.load(told)

    monkeypatch.setattr(rerun, "_in_clean_process", repeat)


def rows() -> list[tuple[Any, ...]]:
    """Return all that is stored of jobs, rungs, records and versions."""
    with transaction() as session:
        return [
            tuple(row)
            for table in (UnlearningJob, Rung, JobRecord, ModelVersion)
            for row in session.execute(
                select(table.__table__).order_by(*table.__table__.primary_key)
            )
        ]


def test_a_job_is_reproduced_in_a_process_of_its_own_and_the_log_says_so(
    published: Callable[[str], UUID], capfd: pytest.CaptureFixture[str]
) -> None:
    job_id = published("plain")
    before = rows()
    capfd.readouterr()
    assert rerun.main([str(job_id), "--json"]) == 0
    told = capfd.readouterr()
    # What the recipe prints is not in the answer.
    result = json.loads(told.out)
    assert "training on" in told.err
    assert (result["outcome"], result["reasons"], result["distance"]) == ("reproduced", [], 0.0)
    (facts,) = reports(job_id)
    assert facts == result
    assert facts["expected"] == facts["digest"] == record(job_id).inputs["digest"]
    assert facts["software"] == record(job_id).inputs["environment"]
    assert rows() == before


def test_a_process_that_dies_has_found_nothing_out(
    published: Callable[[str], UUID],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = published("plain")
    capfd.readouterr()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert rerun.main([str(job_id), "--json"]) == 2
    told = capfd.readouterr()
    assert "ended before it was done (status 1)" in json.loads(told.out)["could_not_run"]
    assert "could not repeat the job" in told.err
    assert reports(job_id) == []


@pytest.mark.usefixtures("here")
def test_what_differs_is_said_and_put_into_the_log(
    published: Callable[[str], UUID], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = published("unseeded")
    capsys.readouterr()
    assert rerun.main([str(job_id)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"job {job_id}: differs"
    assert "  Other weights came out." in lines
    (facts,) = reports(job_id)
    assert facts["outcome"] == "differs"
    assert facts["distance"] > 0
    assert facts["digest"] != facts["expected"]


@pytest.mark.usefixtures("here")
def test_after_the_purge_the_answer_is_exactly_that(
    published: Callable[[str], UUID], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = published("plain")
    purge(parent(job_id))
    capsys.readouterr()
    assert rerun.main([str(job_id)]) == 2
    assert "The parent, version 1, was purged on 2" in capsys.readouterr().out
    (facts,) = reports(job_id)
    assert (facts["outcome"], facts["digest"], facts["distance"]) == ("not_possible", None, None)


@pytest.mark.usefixtures("here")
def test_of_a_job_that_published_nothing_nothing_is_reported(
    published: Callable[[str], UUID], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id, unknown = published("plain"), uuid4()
    with changed(UnlearningJob, UnlearningJob.id == job_id, status="refused"):
        assert rerun.main([str(job_id)]) == 2
        assert "The job is refused: only one that published" in capsys.readouterr().out
    assert rerun.main([str(unknown)]) == 2
    assert "No job has this id." in capsys.readouterr().out
    assert reports(job_id) + reports(unknown) == []
    with pytest.raises(SystemExit) as refused:
        rerun.main(["no-id"])
    assert refused.value.code == 2
