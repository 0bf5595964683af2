"""Samples of many requests at once are stored, and found in models, as if each came by itself."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.db import lock, transaction, try_lock
from app.deletions import intake, samples, submissions
from app.deletions.clocks import Regulation
from app.tables import DeletionRequest, Erasure, RegisteredModel, RequestedSample
from tests.app.working import NOW, hold, plan, publish
from tests.conftest import ID_KEY

pytestmark = pytest.mark.usefixtures("environment")

NAMES = [f"s{n}" for n in range(60)]


def ask(ids: list[str], model: str | None = None) -> submissions.Asked:
    submission = submissions.Submission(ids, model, Regulation.GDPR, None, None)
    return submissions.Asked("client", submissions.take_in(submission, ID_KEY.encode()))


def take(*asked: submissions.Asked) -> list[UUID]:
    with transaction() as session:
        taken = intake.submit_all(session, asked)
        assert all(isinstance(one, intake.Taken) for one in taken)
        return [one.request.id for one in taken if isinstance(one, intake.Taken)]


def erasures() -> Counter[tuple[UUID, str, int, str]]:
    with transaction() as session:
        rows = session.execute(
            select(
                Erasure.request_id, RegisteredModel.name, Erasure.sample_count, Erasure.status
            ).join(RegisteredModel, RegisteredModel.id == Erasure.model_id)
        )
        return Counter(tuple(row) for row in rows)


@pytest.mark.parametrize("most_inserted", [0, 10**6], ids=["copied", "inserted"])
def test_each_request_has_its_own_samples_and_erasures(
    monkeypatch: pytest.MonkeyPatch,
    ready: Callable[..., Any],
    digest: Callable[[str], bytes],
    most_inserted: int,
) -> None:
    monkeypatch.setattr(samples, "MOST_INSERTED", most_inserted)
    draw = random.Random(7)  # noqa: S311  nothing secret
    manifests = {name: draw.sample(NAMES, 25) for name in ("first", "second", "third")}
    for name, manifest in manifests.items():
        ready(name, manifest)
    wanted = [
        (draw.sample(NAMES, draw.randint(1, 12)), draw.choice([None, None, *manifests]))
        for _ in range(30)
    ]
    ids = take(*(ask(*one) for one in wanted))
    with transaction() as session:
        rows = session.scalars(select(RequestedSample))
        stored = {(row.request_id, row.sample_digest) for row in rows}
    assert stored == {
        (id_, digest(name)) for id_, (names, _) in zip(ids, wanted, strict=True) for name in names
    }
    expected = Counter(
        (id_, model, len(held), "pending")
        for id_, (names, only) in zip(ids, wanted, strict=True)
        for model, manifest in manifests.items()
        if only in (None, model) and (held := set(names) & set(manifest))
    )
    assert len(expected) > 30
    assert erasures() == expected


def test_what_earlier_jobs_forgot_is_completed_and_the_rest_is_not(
    ready: Callable[..., Any],
) -> None:
    ready("digits", ["a", "b", "c"], NOW)
    take(ask(["a"]))
    (job_id,) = plan()
    publish(hold(job_id))
    before = erasures()
    ids = take(ask(["a"]), ask(["a", "b"]), ask(["b"]), ask(["d"]))
    assert erasures() - before == Counter(
        {
            (ids[0], "digits", 1, "completed"): 1,
            (ids[1], "digits", 2, "pending"): 1,
            (ids[2], "digits", 1, "pending"): 1,
        }
    )
    with transaction() as session:
        found = [session.get_one(DeletionRequest, id_).status for id_ in ids]
    assert found == ["completed", "pending", "pending", "nothing_found"]


def test_keys_are_inserted_in_one_order_so_that_nobody_waits_in_a_circle() -> None:
    keys = [bytes([n]) for n in random.Random(7).sample(range(200), 60)]  # noqa: S311  no secrets
    with transaction() as session:
        intake.submit_all(session, [replace(ask([str(key)]), key_digest=key) for key in keys])
    with transaction() as session:
        rows = select(DeletionRequest.idempotency_key_digest).order_by(text("ctid"))
        assert session.scalars(rows).all() == sorted(keys)


def test_what_is_submitted_alone_is_the_sessions_as_all_other_rows(
    ready: Callable[..., Any],
) -> None:
    ready("digits", ["a"])
    with transaction() as session:
        taken = intake.submit(session, ask(["a", "b"]))
        taken.request.reference = "written by the session"
        assert [each in session for each in (taken.request, *taken.erasures)] == [True, True]
    with transaction() as session:
        assert session.scalars(select(DeletionRequest.reference)).all() == [
            "written by the session"
        ]


def test_the_intake_shares_the_lock_that_a_model_takes_to_become_ready() -> None:
    with transaction() as session:
        intake.submit(session, ask(["a"]))
        with transaction() as other:
            assert not try_lock(other, "registry")
            lock(other, "registry", shared=True)
    with transaction() as other:
        assert try_lock(other, "registry")
