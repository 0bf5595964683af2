"""Take subject requests in as deletion requests, find them again, and cancel them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app.deletions import cancelling, intake, submissions
from app.deletions.clocks import Regulation
from app.errors import IdempotencyKeyReused, NotFound, TooLate
from app.opendsr import announcing
from app.opendsr.standing import Standing, standings, status_of
from app.privacy import digest_for
from app.settings import settings
from app.tables import DeletionRequest, SubjectRequest, SubjectRequestStatus
from app.webhooks import addresses


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """What a controller asks for. Its sample IDs are plain: they end where it is taken in."""

    id: UUID
    sample_ids: Sequence[str]
    model: str | None
    regulation: Regulation
    submitted_at: datetime
    api_version: str | None
    callback_urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A submission as it may be stored: by whom, and without a sample ID."""

    subject: SubjectRequest
    intake: submissions.Asked


@dataclass(frozen=True, slots=True)
class Taken:
    """A subject request that is stored once the transaction commits."""

    standing: Standing
    is_new: bool
    """False for the answer to a repetition."""


def take_in(client: str, submission: Submission, origin: str, id_key: bytes) -> Asked:
    """Replace the sample IDs by keyed digests; nothing after this sees an ID.

    Raises:
        AddressRefused: no message is sent to one of the callbacks.

    """
    for url in submission.callback_urls:
        addresses.parse(
            url,
            plain_http=settings().mode == "embedded",
            allowed=settings().webhook_private_networks or (),
        )
    taken_in = submissions.take_in(
        submissions.Submission(
            sample_ids=submission.sample_ids,
            model=submission.model,
            regulation=submission.regulation,
            reference=str(submission.id),
            reason=None,
        ),
        id_key,
    )
    said = json.dumps(
        [
            taken_in.body_digest.hex(),
            submission.submitted_at.isoformat(),
            submission.api_version,
            list(submission.callback_urls),
        ]
    )
    subject = SubjectRequest(
        client=client,
        subject_request_id=submission.id,
        origin=origin,
        submitted_at=submission.submitted_at,
        api_version=submission.api_version,
        callback_urls=list(submission.callback_urls),
        told_status=SubjectRequestStatus.PENDING,
    )
    return Asked(
        subject,
        submissions.Asked(
            client=client,
            # With all that the controller said: the same id with anything else is another request.
            intake=replace(taken_in, body_digest=digest_for(id_key, "opendsr", said.encode())),
            key_digest=digest_for(id_key, "subject-request", submission.id.bytes),
        ),
    )


def submit(session: Session, asked: Asked) -> Taken:
    """Store a subject request and the promise that it became; a repetition finds the first.

    Raises:
        IdempotencyKeyReused: the id came before, with another body.
        UnknownModel: it names a model that is not registered.
        Conflict: it names one that was rejected.

    """
    try:
        taken = intake.submit(session, asked.intake)
    except IdempotencyKeyReused:
        raise IdempotencyKeyReused(
            "This subject_request_id came with another body before; make a new one."
        ) from None
    subject = asked.subject
    if taken.is_new:
        announcing.begin(session, subject, taken.request)
    else:
        key = (subject.client, subject.subject_request_id)
        subject = session.get_one(SubjectRequest, key)
    return Taken(_standing(session, subject, taken.request), taken.is_new)


def find(session: Session, client: str, subject_request_id: UUID) -> Standing:
    """Return where a client's own subject request stands.

    Raises:
        NotFound: the client has none of this id.

    """
    subject = session.get(SubjectRequest, (client, subject_request_id))
    if subject is None:
        raise NotFound("No request has this subject_request_id.")
    request = session.get_one(DeletionRequest, subject.deletion_request_id)
    return _standing(session, subject, request)


def cancel(session: Session, client: str, subject_request_id: UUID) -> Standing:
    """Cancel a client's own subject request while nothing has begun; once more changes nothing.

    Raises:
        NotFound: the client has none of this id.
        TooLate: it is not pending any more.

    """
    found = find(session, client, subject_request_id)
    status = status_of(found.request)
    if found.request.cancelled_at is not None and status is SubjectRequestStatus.CANCELLED:
        return found
    if status is not SubjectRequestStatus.PENDING:
        raise TooLate(f"Only a pending request can be cancelled; this one is {status}.")
    cancelling.cancel(session, found.request.id, client)
    if status_of(found.request) is not SubjectRequestStatus.CANCELLED:
        # It began meanwhile, and came too far; the caller's transaction takes all of this back.
        raise TooLate("Only a pending request can be cancelled; this one has begun.")
    return find(session, client, subject_request_id)


def _standing(session: Session, subject: SubjectRequest, request: DeletionRequest) -> Standing:
    return standings(session, [subject], [request])[0]
