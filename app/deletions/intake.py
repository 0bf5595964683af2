"""Take deletion requests in: many in one transaction, each with an outcome of its own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app import lifecycle
from app.audit import ledger
from app.callbacks import announcing
from app.deletions import promises, registered, samples, settlement
from app.deletions.promises import Known, Promise
from app.deletions.submissions import Asked
from app.errors import IdempotencyKeyReused, LetheError
from app.statements import Row, Statement, ask
from app.tables import DeletionRequest, Erasure
from app.webhooks import outbox

# The time comes last, and PostgreSQL computes columns in their order.
_LOCK_AND_CLOCK = """
    SELECT pg_advisory_xact_lock_shared(hashtextextended('lethe/registry', 0)), clock_timestamp()
"""
_KEY = (DeletionRequest.client, DeletionRequest.idempotency_key_digest)
_PIECE = (Erasure.request_id, Erasure.model_id)


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that is stored once the transaction commits."""

    request: DeletionRequest
    """A new one is as it was inserted, and may be unknown to the session."""
    is_new: bool
    """False for the answer to a repetition."""
    erasures: Sequence[Erasure] = ()
    """Of a new one, all that it has by now."""


def submit(session: Session, asked: Asked) -> Taken:
    """Store one promise and what it concerns.

    Raises:
        IdempotencyKeyReused: the key came before, with another body.
        NoCustomClock: it rests on a policy of one's own, and none is configured.
        UnknownModel: the request names a model that is not registered.
        Conflict: it names one that was rejected.

    """
    (outcome,) = submit_all(session, [asked])
    if isinstance(outcome, LetheError):
        raise outcome
    if outcome.is_new:
        _keep(session, outcome.request, outcome.erasures)
    return outcome


def submit_all(session: Session, asked: Sequence[Asked]) -> list[Taken | LetheError]:
    """Store promises and what they concern; return what came of each, in the same order.

    A refusal concerns its own request alone; the others are stored.
    """
    known = _look(session, asked)
    new = [promises.make(one, held, known) for one, held in zip(asked, known.held, strict=True)]
    stored = _store(session, [one for one in new if isinstance(one, Promise)])
    outcomes = [_outcome(one, stored) for one in new]
    _note_repetitions(session, asked, outcomes)
    settled = [outcome for outcome in outcomes if outcome is not None]
    if len(settled) < len(asked):
        raise RuntimeError("an Idempotency-Key was taken, and no request has it")
    return settled


def _look(session: Session, asked: Sequence[Asked]) -> Known:
    """Find out all that decides about the requests, in one round trip."""
    # A model that becomes ready looks back at the requests that came during its check: the lock
    # ``registry`` of ``app.db`` makes sure that each is either seen by it or sees its manifest.
    clock, models, endpoints, held = ask(
        session,
        Statement(_LOCK_AND_CLOCK),
        registered.look({one.intake.model for one in asked if one.intake.model is not None}),
        announcing.look({one.client for one in asked}),
        samples.holders([one.intake.sample_digests for one in asked]),
    )
    return Known(
        received_at(clock),
        registered.read(models),
        announcing.read(endpoints),
        samples.read_holders(held, len(asked)),
    )


def received_at(clock: Sequence[Row]) -> datetime:
    """Return the database's time, which it told once it held the lock."""
    at: datetime = clock[0][1]
    return at


def _store(session: Session, made: Sequence[Promise]) -> Collection[UUID]:
    """Insert promises but those whose Idempotency-Key is taken; return the ids of the others."""
    if not made:
        return set()
    # In one order, so that two transactions with the same keys wait, not deadlock.
    in_order = sorted(
        (one.request for one in made),
        key=lambda request: (request.client, request.idempotency_key_digest or b""),
    )
    (rows,) = ask(session, lifecycle.insertion(in_order, _KEY))
    ids = {id_ for (id_,) in rows}
    new = [one for one in made if one.request.id in ids]
    if new:
        _store_parts(session, new)
    return ids


def _store_parts(session: Session, new: Sequence[Promise]) -> None:
    digests = {one.request.id: one.sample_digests for one in new}
    few = samples.are_few(digests)
    erasures = [erasure for one in new for erasure in one.erasures]
    ask(
        session,
        *([samples.insertion(digests)] if few else []),
        *([lifecycle.insertion(erasures, _PIECE)] if erasures else []),
        ledger.addition([entry for one in new for entry in one.entries]),
    )
    if not few:
        samples.copy(session, digests)
    outbox.enqueue_all(session, [message for one in new for message in one.messages])
    done = [one for one in new if one.forgotten]
    if done:
        for one in done:
            _keep(session, one.request, one.erasures)
        settlement.complete_forgotten(session, [each for one in done for each in one.forgotten])
        settlement.settle(session, [one.request.id for one in done])


def _keep(session: Session, request: DeletionRequest, erasures: Sequence[Erasure]) -> None:
    lifecycle.keep(session, [request])
    lifecycle.keep(session, erasures)


def _outcome(one: Promise | LetheError, stored: Collection[UUID]) -> Taken | LetheError | None:
    if isinstance(one, LetheError):
        return one
    return Taken(one.request, True, one.erasures) if one.request.id in stored else None


def _note_repetitions(
    session: Session, asked: Sequence[Asked], outcomes: list[Taken | LetheError | None]
) -> None:
    """Answer those that were not taken and whose Idempotency-Key came before."""
    keys = {
        place: (one.client, one.key_digest)
        for place, one in enumerate(asked)
        if one.key_digest is not None and not isinstance(outcomes[place], Taken)
    }
    if not keys:
        return
    rows = session.scalars(
        select(DeletionRequest).where(tuple_(*_KEY).in_(sorted(set(keys.values()))))
    )
    earlier = {(row.client, row.idempotency_key_digest): row for row in rows}
    for place, key in keys.items():
        request = earlier.get(key)
        if request is None:
            continue
        if request.body_digest == asked[place].intake.body_digest:
            outcomes[place] = Taken(request, False)
        else:
            outcomes[place] = IdempotencyKeyReused(
                "This Idempotency-Key came with another body before; use a new key."
            )
