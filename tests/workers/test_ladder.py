"""What a job does with a method's outcome, and what it brings along for its methods."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import queue
from app.db import transaction
from app.deletions import planner
from app.derived import leasing
from app.statuses import RungOutcome
from app.tables import GradientLedger, ReferenceLoss, ReferenceSet
from lethe.policy import Batching, Bounds, Debt, Outcome, Policy, References, Verdicts
from workers import ladder, ledgers, references, run
from workers.ladder import what_follows
from workers.unlearning.contract import Context, Unlearned
from workers.unlearning.weights import state_on_cpu

NOW = Batching(max_wait=timedelta(0))
NONE = References(count=0)
FORGOTTEN = tuple(f"person-{index}" for index in range(40))


@pytest.mark.parametrize("inconclusive", ["climb", "publish", "stop"])
@pytest.mark.parametrize("failed", ["climb", "stop"])
def test_the_policy_decides_what_follows_and_never_publishes_what_failed(
    inconclusive: Any, failed: Any
) -> None:
    verdicts = Verdicts(inconclusive=inconclusive, failed=failed)
    follows = {outcome: what_follows(outcome, verdicts) for outcome in RungOutcome}
    assert follows == {
        RungOutcome.PASSED: "publish",
        RungOutcome.INCONCLUSIVE: inconclusive,
        RungOutcome.FAILED: failed,
        RungOutcome.NOT_RUN: "climb",
    }
    assert set(get_args(Outcome)) < {str(outcome) for outcome in RungOutcome}


class _Broken:
    """A method in which the recipe's own code fails."""

    def unlearn(self, *_: Any) -> Any:
        raise ValueError("person-7 is not a batch")


class _Nothing:
    def unlearn(self, model: Any, forget: Any, retain: Any, holdout: Any, context: Context) -> Any:
        return Unlearned(state_on_cpu(model), "approximate", {})


@pytest.fixture
def instead_of_iau(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def put(method: Any) -> None:
        real = ladder.method_for
        monkeypatch.setattr(
            ladder, "method_for", lambda name, o: method if name == "iau" else real(name, o)
        )

    return put


def climbing(**verdicts: Any) -> Policy:
    return Policy(
        batching=NOW,
        ladder=("iau", "retrain"),
        verdicts=Verdicts(**verdicts),
        references=NONE,
    )


def test_a_method_that_the_recipe_breaks_is_not_run_and_the_next_one_is_tried(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    instead_of_iau: Callable[[Any], None],
) -> None:
    serve(climbing())
    instead_of_iau(_Broken())
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"]) == ("published", 1)
    assert [r["outcome"] for r in job["rungs"]] == ["not_run", "passed"]
    assert job["rungs"][0]["verdict"] is None
    assert "ValueError" in job["rungs"][0]["evidence"]["error"]
    assert "person-7" not in str(job)


@pytest.mark.parametrize(
    ("verdicts", "status"), [({"failed": "stop"}, "refused"), ({"failed": "climb"}, "published")]
)
def test_a_ladder_may_stop_at_what_failed(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    instead_of_iau: Callable[[Any], None],
    verdicts: Any,
    status: str,
) -> None:
    serve(climbing(**verdicts))
    instead_of_iau(_Nothing())
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == status


@pytest.mark.parametrize(
    ("follows", "outcomes", "number", "verdict"),
    [
        ("publish", ["inconclusive"], 2, "inconclusive"),
        ("climb", ["inconclusive", "passed"], 2, "passed"),
        ("stop", ["inconclusive"], 1, None),
    ],
)
def test_what_shows_nothing_is_published_only_where_the_policy_says_so_and_never_as_passed(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    follows: str,
    outcomes: list[str],
    number: int,
    verdict: str | None,
) -> None:
    serve(climbing(inconclusive=follows))
    job_id = job_for("person-1", "person-2")
    run.run(job_id)
    rungs = client.get(f"/v1/jobs/{job_id}").json()["rungs"]
    assert [r["outcome"] for r in rungs] == outcomes
    current = client.get("/v1/models/tiny/current").json()
    assert (current["number"], current["verdict"]) == (number, verdict)
    request = client.get("/v1/deletion-requests").json()["items"][0]
    named = request["erasures"][0]["version"]
    assert (named and named["verdict"]) == verdict
    assert request["status"] == ("completed" if number == 2 else "needs_attention")


def waiting(table: Any) -> list[UUID]:
    with transaction() as session:
        return leasing.waiting(session, table)


def test_a_ledger_that_does_not_fit_is_refused_and_the_step_takes_the_full_pass(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    capfd: pytest.CaptureFixture[str],
) -> None:
    serve(climbing(inconclusive="publish"))
    (ledger_id,) = waiting(GradientLedger)
    ledgers.refresh(ledger_id)
    with transaction() as session:
        other = {"recipe_fingerprint": "sha256:" + "0" * 64}
        session.execute(update(GradientLedger).values(**other))
    job_id = job_for("person-1")
    run.run(job_id)
    rung = client.get(f"/v1/jobs/{job_id}").json()["rungs"][0]
    assert rung["evidence"]["gradient"] == "full_pass"
    assert "ledger.refused" in capfd.readouterr().err


def rows(set_id: UUID) -> int:
    with transaction() as session:
        counted = select(func.count()).where(ReferenceLoss.set_id == set_id)
        return session.scalar(counted) or 0


def test_references_serve_methods_and_verdicts_until_an_exact_version_has_its_own(
    client: TestClient, serve: Callable[..., UUID], job_for: Callable[..., UUID]
) -> None:
    serve(
        Policy(
            batching=NOW,
            ladder=("nabla_tau", "retrain"),
            bounds=Bounds(leak_margin=0.5, leak_left=1.0, utility_budget=10.0),
            verdicts=Verdicts(inconclusive="publish"),
            references=References(count=4),
            debt=Debt(max_share=0.2),
        )
    )
    (set_id,) = waiting(ReferenceSet)
    while references.make_reference(set_id):
        pass
    assert rows(set_id) == 120
    shown = client.get("/v1/models/tiny").json()["references"]
    assert (shown["status"], shown["done"], shown["planned"]) == ("ready", 4, 4)

    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    (rung,) = client.get(f"/v1/jobs/{job_id}").json()["rungs"]
    assert rung["evidence"]["targets"] == "per_sample"
    assert rung["evidence"]["targets_known"] == 40
    assert "forgotten.calibrated" in [c["name"] for c in rung["verdict"]["checks"]]
    assert rows(set_id) == 80  # of the forgotten nothing is left

    with transaction() as session:
        (rebase,) = planner.plan(session)
    run.run(rebase)
    assert client.get("/v1/models/tiny/current").json()["guarantee"] == "exact"
    (again,) = waiting(ReferenceSet)
    assert again != set_id
    assert rows(set_id) == 0


def test_what_is_kept_beside_the_weights_is_asked_for_as_soon_as_it_can_be(
    serve: Callable[..., UUID], job_for: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr(queue, "nudge", lambda task, id_=None: asked.append((task, id_)))
    serve(Policy(batching=NOW, ladder=("iau", "retrain"), references=References(count=4)))
    (set_id,), (ledger_id,) = waiting(ReferenceSet), waiting(GradientLedger)
    assert asked == [(queue.REFRESH_LEDGER, ledger_id), (queue.MAKE_REFERENCE, set_id)]
    asked.clear()
    for _ in range(4):
        tasks.make_reference(str(set_id))
    # Each asks for the next one, so that jobs may go between them; the last has nothing to ask for.
    assert asked == [(queue.MAKE_REFERENCE, set_id)] * 3
    tasks.refresh_ledger(str(ledger_id))
    assert waiting(GradientLedger) == []
    job_id = job_for("person-1", "person-2")
    asked.clear()
    tasks.run_job(str(job_id))
    assert (queue.REFRESH_LEDGER, waiting(GradientLedger)[0]) in asked
