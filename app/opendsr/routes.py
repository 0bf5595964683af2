"""OpenDSR 2.0 over HTTP: for controllers that speak it to all of their processors."""

import base64
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app import db, queue
from app.db import transaction
from app.deletions.clocks import Regulation
from app.deletions.schemas import MOST_SAMPLE_IDS
from app.errors import (
    AddressRefused,
    Conflict,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    TooLate,
    Unavailable,
    UnknownModel,
)
from app.opendsr import schemas, service, signing
from app.opendsr.answers import described
from app.opendsr.signing import PREFIX, Processor
from app.opendsr.standing import Standing, completion, tell
from app.security import Reader, Submitter, Withdrawer
from app.settings import settings
from app.wire import COMMON, WITH_BODY

REQUESTS = "/requests"
CERTIFICATE = "/certificate"
CHAIN = "application/pem-certificate-chain"

router = APIRouter(prefix=PREFIX, tags=["OpenDSR"])


async def set_up() -> Processor:
    """Return this service as controllers see it.

    Raises:
        NotFound: it is not set up for them.

    """
    known = signing.processor()
    if known is None:
        raise NotFound("OpenDSR is not set up here; the operator can do that.")
    return known


async def raw_body(request: Request) -> bytes:
    """Return the body as it came."""
    return await request.body()


SetUp = Annotated[Processor, Depends(set_up)]
Signed = TypeVar("Signed", schemas.SubmissionAnswer, schemas.CancellationAnswer)


@router.post(
    REQUESTS,
    status_code=status.HTTP_201_CREATED,
    responses=described(
        *(*WITH_BODY, NotFound, UnknownModel, IdempotencyKeyReused, AddressRefused, Conflict),
        success={
            201: {
                "description": "Stored for good.",
                "headers": {"Location": {"schema": {"type": "string"}}},
            }
        },
    ),
)
def submit(
    body: schemas.NewRequest,
    caller: Submitter,
    known: SetUp,
    raw: Annotated[bytes, Depends(raw_body)],
    response: Response,
) -> schemas.SubmissionAnswer:
    """Ask for samples to be forgotten. When this answers 201, the request is stored for good.

    The same request once more gives the same answer, in which the signature alone is another.
    """
    sample_ids, model = _samples(body, known.domain)
    submission = service.Submission(
        id=UUID(body.subject_request_id),
        sample_ids=sample_ids,
        model=model,
        regulation=Regulation(body.regulation),
        submitted_at=body.submitted_time,
        api_version=body.api_version,
        callback_urls=body.status_callback_urls,
    )
    id_key = settings().required_id_key()
    asked = service.take_in(caller.name, submission, known.origin, id_key)
    with transaction() as session:
        taken = service.submit(session, asked)
        subject, request = taken.standing.subject, taken.standing.request
    if taken.is_new:
        queue.nudge(queue.PLAN)
    response.headers["Location"] = f"{PREFIX}{REQUESTS}/{subject.subject_request_id}"
    return _signed(
        schemas.SubmissionAnswer(
            controller_id=subject.client,
            # As it was at the receipt, so that it is the same for a repetition.
            expected_completion_time=request.due_at or request.received_at,
            received_time=request.received_at,
            encoded_request=base64.b64encode(raw).decode(),
            subject_request_id=subject.subject_request_id,
            processor_signature="",
        ),
        known,
    )


@router.get(
    REQUESTS + "/{subject_request_id}",
    response_model_exclude_none=True,
    responses=described(*COMMON, NotFound),
)
def get(
    subject_request_id: schemas.SubjectRequestId, caller: Reader, _: SetUp
) -> schemas.StatusAnswer:
    """Say where a request of the caller's own stands."""
    with transaction() as session:
        return _describe(service.find(session, caller.name, UUID(subject_request_id)))


@router.delete(
    REQUESTS + "/{subject_request_id}",
    status_code=status.HTTP_202_ACCEPTED,
    responses=described(
        *(*COMMON, NotFound, TooLate), success={202: {"description": "It is cancelled."}}
    ),
)
def cancel(
    subject_request_id: schemas.SubjectRequestId, caller: Withdrawer, known: SetUp
) -> schemas.CancellationAnswer:
    """Cancel a pending request of the caller's own. Once more changes nothing."""
    with transaction() as session:
        standing = service.cancel(session, caller.name, UUID(subject_request_id))
    queue.nudge(queue.SWEEP)
    return _signed(
        schemas.CancellationAnswer(
            controller_id=standing.subject.client,
            received_time=standing.request.cancelled_at or completion(standing.request),
            subject_request_id=standing.subject.subject_request_id,
            processor_signature="",
        ),
        known,
    )


@router.get("/discovery", responses=described(NotFound))
def discovery(known: SetUp) -> schemas.Discovery:
    """Say what of OpenDSR is supported, and where the certificate of the signatures is."""
    return schemas.Discovery(processor_certificate=f"{known.origin}{PREFIX}{CERTIFICATE}")


@router.get(
    CERTIFICATE,
    response_class=Response,
    responses=described(
        NotFound,
        success={
            200: {
                "content": {CHAIN: {"schema": {"type": "string"}}},
                "description": "The certificate of the signatures, and those that vouch for it.",
            }
        },
    ),
)
def certificate(_: SetUp) -> Response:
    """Return the certificate by whose key each answer and callback is signed, as PEM."""
    return Response(signing.certificates(), media_type=CHAIN)


@router.get("/status", responses=described(NotFound, Unavailable))
def availability(_: SetUp) -> schemas.Availability:
    """Say that requests can be stored. OpenDSR asks for this path, and leaves open what it says."""
    if not db.is_migrated():
        raise Unavailable("The database is not ready; ask again.")
    return schemas.Availability()


def _samples(body: schemas.NewRequest, domain: str) -> tuple[list[str], str | None]:
    """Return the samples that a request names, and the model that it is limited to."""
    own = schemas.Extension()
    if domain in body.extensions:
        try:
            own = schemas.Extension.model_validate(body.extensions[domain])
        except ValidationError as error:
            place = ("body", "extensions", domain)
            raise RequestValidationError(
                [{**each, "loc": (*place, *each["loc"])} for each in error.errors()]
            ) from None
    named = [identity.identity_value for identity in body.subject_identities]
    # A sample may be named in either way, or in both.
    sample_ids = list(dict.fromkeys([*named, *own.sample_ids]))
    if not sample_ids:
        raise Invalid("Name a sample: in `subject_identities`, or in this domain's `extensions`.")
    if len(sample_ids) > MOST_SAMPLE_IDS:
        raise Invalid(f"Name at most {MOST_SAMPLE_IDS} samples; split the request.")
    return sample_ids, own.model


def _describe(standing: Standing) -> schemas.StatusAnswer:
    return schemas.StatusAnswer.model_validate(tell(standing))


def _signed(answer: Signed, known: Processor) -> Signed:
    members: dict[str, Any] = answer.model_dump(mode="json")
    return answer.model_copy(update={"processor_signature": known.sign_members(members)})
