"""What planning reads is found by indexes, whatever plan PostgreSQL keeps for its statements."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from app.db import transaction
from app.deletions import planner
from lethe.policy import Batching, Policy
from tests.app.query_plans import read_by
from tests.app.watching import statements
from tests.app.working import NOW

PENDING = {"ix_erasures_to_plan", "ix_erasures_waiting", "ix_erasures_of_a_cohort"}


def test_who_is_due_is_found_by_the_indexes_of_what_is_pending(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=Policy(batching=Batching(max_samples=2, max_wait=timedelta(days=1))))
    submit("a")
    with statements() as seen, transaction() as session:
        assert planner.due(session) == []
    ranking, counting = (s for s in seen if "erasures" in s)
    assert read_by(counting) & PENDING
    assert read_by(ranking) - PENDING <= {
        *("registered_models", "pk_registered_models", "model_versions", "pk_model_versions"),
        *("uq_unlearning_jobs_one_unfinished", "ix_unlearning_jobs_model_id_created_at"),
        *("ix_unlearning_jobs_rebases", "uq_reference_sets_one_in_use"),
    }
    assert read_by(counting) <= PENDING
    # As it would be if the status were a parameter.
    anything = counting.replace("'pending'", "%(status)s")
    assert anything != counting
    assert not read_by(anything) & PENDING


def test_a_batch_is_chosen_by_the_indexes_of_what_is_pending(
    ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    model_id = ready(policy=NOW)
    submit("a")
    with statements() as seen, transaction() as session:
        assert planner.plan_model(session, model_id) is not None
    chosen = [s for s in seen if "ORDER BY erasures.due_at" in s]
    assert len(chosen) == 2
    for statement in chosen:
        assert read_by(statement) <= PENDING
