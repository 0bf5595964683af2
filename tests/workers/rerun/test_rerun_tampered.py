"""Whatever was changed behind a published job is found when it is repeated."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.db import transaction
from app.tables import (
    JobRecord,
    ManifestEntry,
    ModelVersion,
    Rung,
    UnlearningJob,
)
from lethe.policy import Policy
from tests.workers.rerun.repeating import (
    LENIENT,
    OTHER,
    changed,
    outcome,
    parent,
    record,
    recorded,
    store,
)
from workers.records import dump_losses, load_losses


def test_whatever_was_changed_behind_a_published_job_is_found(judged: UUID) -> None:
    job_id, of_job = judged, UnlearningJob.id == judged
    inputs, losses = record(job_id).inputs, record(job_id).losses
    assert losses is not None
    seed, policy = inputs["seed"] + 1, Policy(ladder=("nabla_tau",), **LENIENT)
    slower = policy.model_dump(mode="json")
    slower["options"]["nabla_tau"]["learning_rate"] = 1e-5
    with changed(UnlearningJob, of_job, policy=slower):
        follows_slower = next(
            each for each in _contradictions(job_id) if each.endswith("policy than the record")
        )
        slower_digest = _rows(job_id)["policy"]
    with transaction() as session:
        forgotten = session.scalars(
            select(ManifestEntry.sample_digest).where(ManifestEntry.forgotten_by_job_id == job_id)
        ).first()
        verdict = session.get_one(Rung, {"job_id": job_id, "attempt": 1, "position": 0}).verdict
    assert verdict is not None
    targets, judges = load_losses(losses)
    assert targets is not None
    assert judges is not None
    known = judges.forgotten
    lenient = replace(judges, forgotten=replace(known, mean=known.mean - 1))
    weaker = {**verdict, "confidence": 0.5}

    def row(**values: Any) -> AbstractContextManager[None]:
        return changed(UnlearningJob, of_job, **values)

    def kept(content: bytes) -> AbstractContextManager[None]:
        return changed(JobRecord, JobRecord.job_id == job_id, losses=content)

    def dumped(*given: Any) -> bytes:
        return dump_losses(*given) or b""

    changes: dict[str, tuple[list[Callable[[], AbstractContextManager[None]]], str]] = {
        "nothing": ([], ""),
        "seed": ([lambda: row(seed=seed)], "the database has another seed"),
        "seed, and its record": (
            [lambda: row(seed=seed), lambda: recorded(job_id, seed=seed)],
            "the audit log has another seed",
        ),
        "policy": ([lambda: row(policy=slower)], follows_slower),
        "policy, and its record": (
            [lambda: row(policy=slower), lambda: recorded(job_id, policy=slower_digest)],
            "Other weights came out.",
        ),
        "method": ([lambda: recorded(job_id, method="retrain")], "audit log has another method"),
        "outcome": ([lambda: recorded(job_id, digest=OTHER)], "audit log has another digest"),
        "parent": (
            [
                lambda: changed(
                    ModelVersion, ModelVersion.id == parent(job_id).id, digest=inputs["digest"]
                )
            ],
            "the database has another parent_digest",
        ),
        "forgotten": (
            [
                lambda: changed(
                    ManifestEntry,
                    ManifestEntry.sample_digest == forgotten,
                    forgotten_by_job_id=None,
                )
            ],
            "another forget than",
        ),
        "targets": ([lambda: kept(dumped(targets + 0.5, judges))], "Other weights came out."),
        "judges": ([lambda: kept(dumped(targets, lenient))], "The verdict is another one."),
        "broken losses": ([lambda: kept(losses[:-1])], "not as they were written"),
        "verdict": (
            [lambda: changed(Rung, Rung.job_id == job_id, verdict=weaker)],
            "The verdict is another one.",
        ),
    }
    for name, (tampered, words) in changes.items():
        with ExitStack() as stack:
            for each in tampered:
                stack.enter_context(each())
            found, why = outcome(job_id)
        assert (name, found) == (name, "differs" if tampered else "reproduced"), why
        assert words in why, name


def test_a_parent_of_other_bytes_is_found(judged: UUID) -> None:
    path = store().path_of(parent(judged).digest)
    content = path.read_bytes()
    path.chmod(0o640)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found, why = outcome(judged)
    assert found == "differs"
    assert "altered" in why
    path.write_bytes(content)
    assert outcome(judged) == ("reproduced", "")


def _rows(job_id: UUID) -> Any:
    from app.jobs import records

    with transaction() as session:
        return records.find(session, job_id).rows


def _contradictions(job_id: UUID) -> list[str]:
    from app.jobs import records

    with transaction() as session:
        return records.contradictions(records.find(session, job_id))
