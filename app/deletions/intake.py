"""Take deletion requests in: many in one transaction, each with an outcome of its own."""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app import lifecycle
from app.deletions import review
from app.deletions.clocks import Regulation, due_at
from app.deletions.laws import law_of
from app.deletions.samples import insert_samples
from app.deletions.settlement import match_new, settle_new
from app.errors import Conflict, IdempotencyKeyReused, LetheError, NoCustomClock, UnknownModel
from app.privacy import digest_for, digest_sample_id, key_id
from app.settings import settings
from app.statuses import ModelStatus
from app.tables import DeletionRequest, Erasure, RegisteredModel
from lethe.verify.commitment import samples_commitment

SALT_BYTES = 32
# The time comes last, and PostgreSQL computes columns in their order.
_LOCK_AND_CLOCK = """
    SELECT pg_advisory_xact_lock_shared(hashtextextended('lethe/registry', 0)), clock_timestamp()
"""
_KEY = (DeletionRequest.client, DeletionRequest.idempotency_key_digest)


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """What a client asks for. The only place outside a Recipe where sample IDs are plain."""

    sample_ids: Sequence[str]
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Intake:
    """A submission as it may be stored: every sample ID replaced by its keyed digest."""

    sample_digests: Sequence[bytes]
    body_digest: bytes
    id_key_id: str
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """An intake, by whom, and the digest of the Idempotency-Key that came with it."""

    client: str
    intake: Intake
    key_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that is stored once the transaction commits."""

    request: DeletionRequest
    is_new: bool
    """False for the answer to a repetition."""
    erasures: Sequence[Erasure] = ()
    """Of a new one, all that it has by now."""


def take_in(submission: Submission, id_key: bytes) -> Intake:
    """Replace the sample IDs by keyed digests; nothing after this sees an ID."""
    digests = sorted({digest_sample_id(id_key, id_) for id_ in submission.sample_ids})
    body = json.dumps(
        [
            [digest.hex() for digest in digests],
            submission.model,
            submission.regulation,
            submission.reference,
            submission.reason,
        ]
    )
    return Intake(
        sample_digests=digests,
        body_digest=digest_for(id_key, "body", body.encode()),
        id_key_id=key_id(id_key),
        model=submission.model,
        regulation=submission.regulation,
        reference=submission.reference,
        reason=submission.reason,
    )


def key_digest(key: str, id_key: bytes) -> bytes:
    """Return what is stored of an Idempotency-Key, which may hold personal data."""
    return digest_for(id_key, "idempotency-key", key.encode())


def submit(session: Session, asked: Asked) -> Taken:
    """Store one promise and what it concerns.

    Raises:
        IdempotencyKeyReused: the key came before, with another body.
        UnknownModel: the request names a model that is not registered.
        Conflict: it names one that was rejected.

    """
    (outcome,) = submit_all(session, [asked])
    if isinstance(outcome, LetheError):
        raise outcome
    return outcome


def submit_all(session: Session, asked: Sequence[Asked]) -> list[Taken | LetheError]:
    """Store promises and what they concern; return what came of each, in the same order.

    A refusal concerns its own request alone; the others are stored.
    """
    # A model that becomes ready looks back at the requests that came during its check: this
    # lock makes sure that each request is either seen by it or sees its manifest.
    received_at = _begin(session)
    models = _models(session, {one.intake.model for one in asked if one.intake.model is not None})
    outcomes: dict[int, Taken | LetheError] = {
        place: refusal
        for place, one in enumerate(asked)
        if (refusal := _refusal(one, models)) is not None
    }
    # The same for all that come under one law at this moment.
    due = {
        regulation: due_at(law_of(regulation), received_at, settings().time_zone)
        for regulation in {
            one.intake.regulation for place, one in enumerate(asked) if place not in outcomes
        }
    }
    values = {
        place: _values(one, models, received_at, due[one.intake.regulation])
        for place, one in enumerate(asked)
        if place not in outcomes
    }
    digests = {of_one["id"]: asked[place].intake.sample_digests for place, of_one in values.items()}
    named = {of_one["id"]: asked[place].intake.model for place, of_one in values.items()}
    held = review.to_hold(
        session,
        [
            review.Sought(id_, None if name is None else models[name], digests[id_])
            for id_, name in named.items()
        ],
    )
    for of_one in values.values():
        of_one["held_at"] = received_at if of_one["id"] in held else None
    with lifecycle.together(session):
        new = _insert(session, list(values.values()), digests)
        erasures = match_new(session, new.values(), digests)
        settle_new(session, new.values(), erasures)
    of_each: dict[UUID, list[Erasure]] = {}
    for erasure in erasures:
        of_each.setdefault(erasure.request_id, []).append(erasure)
    outcomes |= {
        place: Taken(new[of_one["id"]], True, of_each.get(of_one["id"], ()))
        for place, of_one in values.items()
        if of_one["id"] in new
    }
    _note_repetitions(session, asked, outcomes)
    return [outcomes[place] for place in range(len(asked))]


def _begin(session: Session) -> datetime:
    """Share the lock ``registry`` of ``app.db``; return the database's time once it is held."""
    at: datetime = session.connection().exec_driver_sql(_LOCK_AND_CLOCK).one()[1]
    return at


def _models(session: Session, names: Collection[str]) -> Mapping[str, RegisteredModel]:
    if not names:
        return {}
    rows = session.scalars(select(RegisteredModel).where(RegisteredModel.name.in_(names)))
    return {model.name: model for model in rows}


def _refusal(one: Asked, models: Mapping[str, RegisteredModel]) -> LetheError | None:
    try:
        law_of(one.intake.regulation)
    except NoCustomClock as refusal:
        return refusal
    if one.intake.model is None:
        return None
    model = models.get(one.intake.model)
    if model is None:
        return UnknownModel("Register the model first, or leave `model` out to reach every model.")
    if model.status == ModelStatus.REJECTED:
        return Conflict("The model's registration was rejected; it holds no samples.")
    return None


def _values(
    one: Asked,
    models: Mapping[str, RegisteredModel],
    received_at: datetime,
    due: datetime | None,
) -> dict[str, Any]:
    intake = one.intake
    return {
        "id": uuid4(),
        "client": one.client,
        "idempotency_key_digest": one.key_digest,
        "body_digest": intake.body_digest,
        "model_id": None if intake.model is None else models[intake.model].id,
        "regulation": intake.regulation,
        "reference": intake.reference,
        "reason": intake.reason,
        "sample_count": len(intake.sample_digests),
        "samples_salt": secrets.token_bytes(SALT_BYTES),
        "id_key_id": intake.id_key_id,
        "received_at": received_at,
        "due_at": due,
    }


def _insert(
    session: Session, values: list[dict[str, Any]], digests: Mapping[UUID, Sequence[bytes]]
) -> dict[UUID, DeletionRequest]:
    """Insert requests and their samples, but none whose Idempotency-Key is taken."""
    rows = lifecycle.begin_missing(
        session,
        DeletionRequest,
        # In one order, so that two transactions with the same keys wait, not deadlock.
        sorted(values, key=lambda one: (one["client"], one["idempotency_key_digest"] or b"")),
        _KEY,
        lambda request: _facts(request, digests[request.id]),
    )
    new = {request.id: request for request in rows}
    insert_samples(session, {id_: digests[id_] for id_ in new})
    return new


def _facts(request: DeletionRequest, digests: Sequence[bytes]) -> Mapping[str, Any]:
    assert request.samples_salt is not None  # noqa: S101  # it was inserted with one
    return {
        "regulation": request.regulation,
        "samples": request.sample_count,
        "samples_commitment": samples_commitment(request.samples_salt, digests).hex(),
        "received_at": request.received_at.isoformat(),
        "due_at": request.due_at.isoformat() if request.due_at else None,
        "approval": "automatic" if request.held_at is None else "manual",
    }


def _note_repetitions(
    session: Session, asked: Sequence[Asked], outcomes: dict[int, Taken | LetheError]
) -> None:
    """Answer those that were not taken and whose Idempotency-Key came before."""
    keys = {
        place: (one.client, one.key_digest)
        for place, one in enumerate(asked)
        if one.key_digest is not None and not isinstance(outcomes.get(place), Taken)
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
