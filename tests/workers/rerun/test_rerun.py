"""A published job is repeated from its record, to the bit where the computer allows it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.db import transaction
from app.deletions import planner
from app.tables import (
    Rung,
    UnlearningJob,
)
from lethe.policy import Debt, Policy
from tests.workers.conftest import EXACT
from tests.workers.rerun import recipes
from tests.workers.rerun.repeating import (
    FORGOTTEN,
    LENIENT,
    NOW,
    OTHER,
    UNJUDGED,
    changed,
    follow,
    make_references,
    outcome,
    publish,
    record,
    recorded,
    serve,
    store,
    sum_gradients,
)
from workers import run
from workers.rerun_job import repeat

ROOT = Path(__file__).parents[3]
REPEAT_ALL = """
import json, sys
from dataclasses import asdict
from uuid import UUID
from workers.rerun_job import repeat
sys.stdout, told = sys.stderr, sys.stdout
for job_id in sys.argv[1:]:
    print(json.dumps(asdict(repeat(UUID(job_id)))), file=told)
"""


@pytest.fixture
def repeat_elsewhere(packages: Path) -> Callable[..., list[dict[str, Any]]]:
    """Repeat jobs in a process that has seen nothing of them."""

    def run_it(*jobs: UUID) -> list[dict[str, Any]]:
        command = [sys.executable, "-c", REPEAT_ALL, *map(str, jobs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run_it


def rungs(job_id: UUID) -> list[tuple[str, str]]:
    with transaction() as session:
        rows = session.scalars(select(Rung).where(Rung.job_id == job_id).order_by(Rung.position))
        return [(row.method, row.outcome) for row in rows]


def test_jobs_of_every_kind_are_reproduced_to_the_bit_by_another_process(
    job_for: Callable[..., UUID], repeat_elsewhere: Callable[..., list[dict[str, Any]]]
) -> None:
    model_id = serve("plain", Policy(ladder=("iau",), **LENIENT))
    make_references()
    sum_gradients()
    with_ledger = publish(job_for(*FORGOTTEN[:4]))
    without = publish(job_for(*FORGOTTEN[4:8]))
    follow(model_id, Policy(ladder=("nabla_tau",), **LENIENT))
    per_sample = publish(job_for(*FORGOTTEN[8:20]))
    # A step so long that the model is of no use any more, and then a retrain.
    failing = Policy.model_validate(
        {
            "batching": NOW,
            "ladder": ("iau", "retrain"),
            "options": {"iau": {"learning_rate": 10.0}},
            "bounds": {"utility_budget": 0.5},
            "debt": {"max_share": 1.0, "max_drift": 1e6},
            "references": {"count": 0},
        }
    )
    follow(model_id, failing)
    climbed = publish(job_for(*FORGOTTEN[20:]))
    indebted = {**LENIENT, "debt": Debt(max_share=0.01)}
    follow(model_id, Policy(ladder=("iau", "retrain"), **indebted))
    publish(job_for("person-40", "person-41"))
    with transaction() as session:
        (rebase,) = planner.plan(session)
    publish(rebase)

    jobs = [with_ledger, without, per_sample, climbed, rebase]
    found = repeat_elsewhere(*jobs)
    told = [(each["outcome"], each["reasons"], each["distance"]) for each in found]
    assert told == [("reproduced", [], 0.0)] * len(jobs)
    assert [each["digest"] for each in found] == [each["expected"] for each in found]
    assert [each["differences"] for each in found] == [{}] * len(jobs)
    # Without these the jobs would all be of one kind.
    assert record(with_ledger).inputs["ledger"] is not None
    assert record(without).inputs["ledger"] is None
    assert [record(job).inputs["method"] for job in jobs] == [
        *("iau", "iau", "nabla_tau", "retrain", "retrain"),
    ]
    assert rungs(climbed) == [("iau", "failed"), ("retrain", "passed")]
    assert (record(rebase).inputs["forget"], record(rebase).inputs["forgotten"]) == (2, 40)
    assert len({each["expected"] for each in found}) == len(jobs)


def test_a_job_that_ran_out_of_memory_is_repeated_with_the_smaller_batches(
    job_for: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("plain", Policy(ladder=("nabla_tau",), **UNJUDGED))
    job_id = job_for(*FORGOTTEN)
    with monkeypatch.context() as patch:

        def out_of_memory(*_: Any) -> None:
            raise MemoryError

        patch.setattr(run, "climb", out_of_memory)
        run.run(job_id)
    publish(job_id)
    inputs = record(job_id).inputs
    assert (inputs["attempt"], inputs["batch_limit"]) == (2, 256)
    assert outcome(job_id) == ("reproduced", "")
    of_job = UnlearningJob.id == job_id
    with changed(UnlearningJob, of_job, batch_limit=8), recorded(job_id, batch_limit=8):
        assert outcome(job_id)[0] == "differs"


@pytest.mark.parametrize(
    ("jitter", "tolerance", "expected"),
    [("1e-4", 0, "differs"), ("1e-4", 0.01, "reproduced"), ("1", 0.01, "differs")],
)
def test_what_nobody_seeded_differs_unless_it_stays_within_a_tolerance(
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
    jitter: str,
    tolerance: float,
    expected: str,
) -> None:
    monkeypatch.setenv(recipes.JITTER, "1e-4")
    serve("unseeded", EXACT)
    job_id = publish(job_for(*FORGOTTEN))
    monkeypatch.setenv(recipes.JITTER, jitter)
    assert record(job_id).inputs["tolerance"] == 0
    with recorded(job_id, tolerance=tolerance):
        result = repeat(job_id)
    assert result.outcome == expected, result.reasons
    assert ("Other weights came out." in result.reasons) == (expected == "differs")
    assert result.distance is not None
    assert result.distance > 0
    assert (result.distance <= 0.01) == (jitter == "1e-4")
    assert result.digest != result.expected


def test_other_software_is_listed_and_changes_no_outcome(judged: UUID) -> None:
    environment = record(judged).inputs["environment"]
    with recorded(judged, environment={**environment, "torch": "1.0"}, recipe_fingerprint=OTHER):
        result = repeat(judged)
    assert result.outcome == "reproduced"
    assert set(result.differences) == {"torch", "recipe_fingerprint"}
    assert result.differences["torch"]["recorded"] == "1.0"


def test_the_ledger_of_an_iau_job_is_the_one_it_used(job_for: Callable[..., UUID]) -> None:
    serve("plain", Policy(ladder=("iau",), **UNJUDGED))
    sum_gradients()
    job_id = publish(job_for(*FORGOTTEN))
    digest = record(job_id).inputs["ledger"]["digest"]
    path = store().path_of(digest)
    content = path.read_bytes()
    # Whatever the recipe is by now: the ledger is an input.
    ledger = {**record(job_id).inputs["ledger"], "recipe_fingerprint": OTHER}
    with recorded(job_id, ledger=ledger):
        assert outcome(job_id) == ("reproduced", "")
    path.chmod(0o640)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert outcome(job_id)[0] == "differs"
    path.unlink()
    found, why = outcome(job_id)
    assert (found, why) == ("not_possible", "The gradient ledger that the job used is gone.")
