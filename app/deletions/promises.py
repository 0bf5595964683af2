"""Make what is stored for a request, by what is known when it comes; here nothing is stored."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from app import lifecycle
from app.audit.ledger import Entry
from app.callbacks import announcing
from app.callbacks.announcing import Endpoint
from app.deletions import review, settlement
from app.deletions.clocks import Regulation, due_at
from app.deletions.laws import law_of
from app.deletions.registered import Registered
from app.deletions.samples import Held
from app.deletions.submissions import Asked
from app.errors import Conflict, LetheError, NoCustomClock, UnknownModel
from app.settings import settings
from app.statuses import ModelStatus
from app.tables import DeletionRequest, Erasure
from app.webhooks.outbox import Outgoing
from lethe.verify.commitment import samples_commitment

SALT_BYTES = 32


class Known:
    """What decides about the requests of one transaction."""

    def __init__(
        self,
        received_at: datetime,
        models: Collection[Registered],
        endpoints: Sequence[Endpoint],
        held: Sequence[Sequence[Held]],
    ) -> None:
        """Take what was found, and for each request what models hold of its samples."""
        self.received_at = received_at
        self.endpoints = endpoints
        self.held = held
        self.named = {model.name: model for model in models}
        self.reviewing = {m.id: m.review for m in models if m.status == ModelStatus.READY}
        self.checking = [model for model in models if model.status == ModelStatus.CHECKING]
        self._due: dict[Regulation, datetime | None] = {}

    def due_at(self, regulation: Regulation) -> datetime | None:
        """Return the deadline of all that come under one law at this moment.

        Raises:
            NoCustomClock: it is the policy of one's own, and none is configured.

        """
        if regulation not in self._due:
            self._due[regulation] = due_at(
                law_of(regulation), self.received_at, settings().time_zone
            )
        return self._due[regulation]


@dataclass(frozen=True, slots=True)
class Promise:
    """All that is to be inserted for one request."""

    request: DeletionRequest
    sample_digests: Sequence[bytes]
    erasures: Sequence[Erasure]
    forgotten: Sequence[Erasure]
    """Those of them whose samples earlier jobs forgot; they are complete as soon as they begin."""
    entries: Sequence[Entry]
    messages: Sequence[Outgoing]


def make(one: Asked, held: Sequence[Held], known: Known) -> Promise | LetheError:
    """Return what is to be inserted for a request, or why nothing is."""
    named = one.intake.model
    model = None if named is None else known.named.get(named)
    if named is not None and model is None:
        return UnknownModel("Register the model first, or leave `model` out to reach every model.")
    if model is not None and model.status == ModelStatus.REJECTED:
        return Conflict("The model's registration was rejected; it holds no samples.")
    try:
        request = _request(one, model, known)
    except NoCustomClock as refusal:
        return refusal
    holding = [each.model_id for each in held]
    if review.to_hold(model, holding, request.sample_count, known.reviewing):
        request.held_at = known.received_at
        held = ()
    return _begin(request, one.intake.sample_digests, held, known)


def _request(one: Asked, model: Registered | None, known: Known) -> DeletionRequest:
    intake = one.intake
    return DeletionRequest(
        id=uuid4(),
        client=one.client,
        idempotency_key_digest=one.key_digest,
        body_digest=intake.body_digest,
        model_id=None if model is None else model.id,
        regulation=intake.regulation,
        reference=intake.reference,
        reason=intake.reason,
        sample_count=len(intake.sample_digests),
        samples_salt=secrets.token_bytes(SALT_BYTES),
        id_key_id=intake.id_key_id,
        received_at=known.received_at,
        due_at=known.due_at(intake.regulation),
        paused_for=timedelta(0),
    )


def _begin(
    request: DeletionRequest, digests: Sequence[bytes], held: Sequence[Held], known: Known
) -> Promise:
    """Have a request begin, and come as far as it does at once."""
    entries = [lifecycle.begun(request, _facts(request, digests))]
    messages = announcing.messages([request], known.endpoints)
    erasures = settlement.erasures_for(request, held, known.received_at)
    entries += [lifecycle.begun(each, settlement.erasure_facts(each)) for each in erasures]
    moved = settlement.settle_new(request, erasures, known.checking)
    if moved:
        messages += announcing.messages([request], known.endpoints)
    gone = {each.model_id for each in held if not each.remaining}
    return Promise(
        request=request,
        sample_digests=digests,
        erasures=erasures,
        forgotten=[each for each in erasures if each.model_id in gone],
        entries=[*entries, *moved],
        messages=messages,
    )


def _facts(request: DeletionRequest, digests: Sequence[bytes]) -> Mapping[str, Any]:
    assert request.samples_salt is not None  # noqa: S101  # it was made with one
    return {
        "regulation": request.regulation,
        "samples": request.sample_count,
        "samples_commitment": samples_commitment(request.samples_salt, digests).hex(),
        "received_at": request.received_at.isoformat(),
        "due_at": request.due_at.isoformat() if request.due_at else None,
        "approval": "automatic" if request.held_at is None else "manual",
    }
