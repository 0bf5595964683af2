"""Holds the database against a plain account of what was promised."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit import ledger
from app.tables import (
    AuditEntry,
    Decision,
    DeletionRequest,
    Erasure,
    ManifestEntry,
    ModelVersion,
    RegisteredModel,
    UnlearningJob,
)
from tests.app.promises import Model, World


def hold_against(session: Session, world: World, plain: dict[bytes, str]) -> None:
    found = contradictions(session, world, plain)
    assert not found, found


def hold_log_against(session: Session, world: World) -> None:
    found = contradictions_of_log(session, world)
    assert not found, found


def contradictions(session: Session, world: World, plain: dict[bytes, str]) -> list[str]:
    """Return in what the rows differ from the account; ``plain`` gives the sample of a digest."""
    return [
        *_of_requests(session, world),
        *_of_jobs(session, world),
        *_of_versions(session, world, plain),
    ]


def _differ(what: str, found: Any, promised: Any) -> Iterator[str]:
    if found != promised:
        yield f"{what}: {found}, promised {promised}"


def _of_requests(session: Session, world: World) -> Iterator[str]:
    found = {
        row.id: (
            row.status,
            "cancelled" if row.cancelled_at else "rejected" if row.rejected_at else None,
            (row.held_at is not None, row.approved_at is not None, row.paused_at is not None),
        )
        for row in session.scalars(select(DeletionRequest))
    }
    yield from _differ(
        "requests",
        found,
        {p.id: (p.status, p.ended, (p.held, p.approved, p.paused)) for p in world.promises},
    )
    decided: dict[UUID, Counter[str]] = defaultdict(Counter)
    for request_id, action in session.execute(select(Decision.request_id, Decision.action)):
        decided[request_id][ACTIONS.get(action, action)] += 1
    yield from _differ(
        "decisions", dict(decided), {p.id: p.decided for p in world.promises if p.decided}
    )
    numbers = dict(session.execute(select(ModelVersion.id, ModelVersion.number)).all())
    erasures = list(session.scalars(select(Erasure)))
    yield from _differ(
        "erasures",
        {(erasure.request_id, erasure.model_id): erasure.status for erasure in erasures},
        {(p.id, m.id): status for p in world.promises for m, status in p.erasures.items()},
    )
    asked = {promise.id: promise.asked for promise in world.promises}
    models = {model.id: model for model in world.models}
    for erasure in erasures:
        if erasure.version_id is not None:
            model = models[erasure.model_id]
            without = [model.forgotten.get(s) for s in model.samples & asked[erasure.request_id]]
            if not all(number and number <= numbers[erasure.version_id] for number in without):
                yield f"erasure {erasure.id} names a version that still holds its samples"


def _of_jobs(session: Session, world: World) -> Iterator[str]:
    rows = list(session.scalars(select(UnlearningJob)))
    yield from _differ(
        "jobs",
        {row.id: (row.status, row.fence, row.failures, row.interruptions) for row in rows},
        {b.id: (b.status, b.fence, b.failures, b.interruptions) for b in world.batches},
    )
    open_rows = [row for row in rows if row.status in ("queued", "running")]
    yield from _differ(
        "batches",
        {row.id: (row.erasure_count, row.sample_count) for row in open_rows},
        {b.id: (len(b.promises), len(b.to_forget)) for b in world.unfinished()},
    )
    for model_id, number in Counter(row.model_id for row in open_rows).items():
        if number > 1:
            yield f"model {model_id} has {number} unfinished jobs"


def _of_versions(session: Session, world: World, plain: dict[bytes, str]) -> Iterator[str]:
    chains: dict[UUID, list[ModelVersion]] = defaultdict(list)
    for version in session.scalars(select(ModelVersion).order_by(ModelVersion.number)):
        chains[version.model_id].append(version)
    current = dict(
        session.execute(select(RegisteredModel.id, RegisteredModel.current_version_id)).all()
    )
    forgotten: dict[UUID, set[str]] = defaultdict(set)
    gone = ManifestEntry.forgotten_by_job_id.is_not(None)
    entries = select(ManifestEntry.model_id, ManifestEntry.sample_digest).where(gone)
    for model_id, digest in session.execute(entries):
        forgotten[model_id].add(plain[digest])
    for model in world.models:
        chain = chains[model.id]
        yield from _of_chain(model, chain, current[model.id])
        yield from _differ(f"forgotten by {model.id}", forgotten[model.id], set(model.forgotten))


def _of_chain(model: Model, chain: list[ModelVersion], current: UUID | None) -> Iterator[str]:
    what = f"versions of {model.id}"
    yield from _differ(what, [v.number for v in chain], list(range(1, model.versions + 1)))
    parents = [None, *(version.id for version in chain)][: len(chain)]
    yield from _differ(f"parents of the {what}", [v.parent_id for v in chain], parents)
    statuses = ["withdrawn"] * (len(chain) - 1) + ["current"]
    yield from _differ(
        f"statuses of the {what}",
        [v.status for v in chain],
        statuses[-len(chain) :] if chain else [],
    )
    yield from _differ(f"current of the {what}", current, chain[-1].id if chain else None)


def contradictions_of_log(session: Session, world: World) -> list[str]:
    """Return in what the log differs from itself and from the account; all of it is placed."""
    statement = select(AuditEntry.event, AuditEntry.subject)
    told = Counter((event, subject) for event, subject in session.execute(statement))
    twice = [key for key, number in told.items() if number > 1 and key[0] in ONCE]
    events = Counter(event for event, _ in told.elements())
    statuses = Counter(s for promise in world.promises for s in promise.erasures.values())
    published = sum(model.versions - 1 for model in world.models if model.versions)
    return [
        *ledger.replay(session),
        *(f"{event} of {subject} more than once" for event, subject in twice),
        *_differ("erasures completed", events["erasure.completed"], statuses["completed"]),
        *_differ("erasures cancelled", events["erasure.cancelled"], world.left["cancelled"]),
        *_differ("erasures rejected", events["erasure.rejected"], world.left["rejected"]),
        *_differ(
            "decisions told",
            sum(n for event, n in events.items() if event.startswith("decision.")),
            sum(promise.decided.total() for promise in world.promises),
        ),
        *_differ("jobs published", events["job.published"], published),
    ]


ONCE = ("erasure.completed", "job.published", "version.current")
# What a decision makes of a request, where it has another word for it.
ACTIONS = {"cancel": "cancelled", "reject": "rejected"}
