"""Whatever clients, planners and workers do, in whatever order, every promise is kept."""

import secrets
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from app.audit import service as audit
from app.db import transaction
from tests.app.accounts import contradictions, contradictions_of_log
from tests.app.lifecycle_machine import WRITES, Lifecycle
from tests.conftest import ID_KEY, TEMPLATE

PROFILE = settings(
    derandomize=True,
    max_examples=8,
    stateful_step_count=50,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    # A failure is shown as it was found: to shorten it would take minutes.
    phases=[Phase.generate],
)


@pytest.fixture
def given(
    servers: Any,
    reread: Callable[[str, str], None],
    register: Any,
    accept: Any,
    reject: Any,
    digest: Any,
) -> Iterator[SimpleNamespace]:
    """What a machine needs of this suite; each begins with a database of its own."""
    names: list[str] = []

    def drop() -> None:
        while names:
            servers.drop_database(names.pop())

    def fresh_database() -> None:
        drop()
        names.append("test_" + secrets.token_hex(6))
        reread("LETHE_DATABASE_URL", servers.create_database(names[0], TEMPLATE))

    yield SimpleNamespace(
        fresh_database=fresh_database,
        register=register,
        accept=accept,
        reject=reject,
        digest=digest,
        id_key=ID_KEY.encode(),
    )
    drop()


@pytest.mark.timeout(300)
def test_every_promise_is_kept_in_any_order_of_events(given: SimpleNamespace) -> None:
    run_state_machine_as_test(lambda: Lifecycle(given), settings=PROFILE)


WRONG_ROWS = [
    "UPDATE deletion_requests SET status = 'cancelled'",
    "UPDATE deletion_requests SET cancelled_at = now()",
    "UPDATE deletion_requests SET rejected_at = now()",
    "UPDATE deletion_requests SET held_at = now()",
    "UPDATE deletion_requests SET paused_at = now()",
    "INSERT INTO decisions (id, request_id, action, by, at, facts) SELECT gen_random_uuid(), id, "
    "'approve', 'nobody', now(), '{}' FROM deletion_requests",
    "DELETE FROM requested_samples; DELETE FROM erasures; DELETE FROM deletion_requests",
    "UPDATE erasures SET status = 'needs_attention' WHERE status = 'scheduled'",
    "UPDATE erasures SET version_id = (SELECT id FROM model_versions v WHERE number = 1 AND "
    "v.model_id = erasures.model_id) WHERE status = 'completed'",
    "UPDATE unlearning_jobs SET fence = fence + 1",
    "UPDATE unlearning_jobs SET failures = 1",
    "UPDATE unlearning_jobs SET erasure_count = erasure_count + 1 WHERE status = 'queued'",
    "UPDATE manifest_entries SET forgotten_by_job_id = NULL",
    "UPDATE model_versions SET number = 3 WHERE number = 2",
    "UPDATE model_versions SET status = 'withdrawn'",
    "UPDATE registered_models SET current_version_id = NULL",
]
WRONG_ENTRIES = [
    "INSERT INTO audit_entries (event, subject, payload) SELECT event, subject, payload "
    "FROM audit_entries WHERE event = 'erasure.completed' LIMIT 1",
    "INSERT INTO audit_entries (event, subject, payload) VALUES "
    "('erasure.cancelled', gen_random_uuid(), '{}')",
    "INSERT INTO audit_entries (event, subject, payload) VALUES "
    "('decision.approve', gen_random_uuid(), '{}')",
    "ALTER TABLE audit_nodes DISABLE TRIGGER USER; "
    "UPDATE audit_nodes SET hash = '\\x00' WHERE level = 0 AND index = 0",
]


def test_whatever_breaks_a_promise_is_noticed(given: SimpleNamespace) -> None:
    machine = Lifecycle(given)
    machine.begin([frozenset("g"), frozenset("h"), frozenset("ab"), frozenset("c")])
    machine.claim(0)
    machine.write(machine.held[0], *WRITES["publish"])
    audit.place_all()
    world, plain = machine.world, machine.plain
    for statements, look in [
        (["SELECT", *WRONG_ROWS], lambda session: contradictions(session, world, plain)),
        (["SELECT", *WRONG_ENTRIES], lambda session: contradictions_of_log(session, world)),
    ]:
        for statement in statements:
            with transaction() as session:
                session.execute(text(statement))
                assert bool(look(session)) is (statement != "SELECT"), statement
                session.rollback()
