"""What deletion requests look like on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from app.deletions.clocks import Regulation
from app.deletions.service import ErasureView
from app.privacy import LONGEST_SAMPLE_ID_BYTES
from app.statuses import ErasureStatus, RequestStatus
from app.tables import DeletionRequest
from app.wire import Answer, Body, Name, Text, VersionName, version_name

MOST_SAMPLE_IDS = 10_000


def _short(sample_id: str) -> str:
    if len(sample_id.encode()) > LONGEST_SAMPLE_ID_BYTES:
        raise ValueError(f"may have at most {LONGEST_SAMPLE_ID_BYTES} bytes in UTF-8")
    return sample_id


def _distinct(sample_ids: Sequence[str]) -> Sequence[str]:
    repeated = len(sample_ids) - len(set(sample_ids))
    if repeated:
        raise ValueError(f"names each sample once; {repeated} are repetitions")
    return sample_ids


SampleId = Annotated[Text, StringConstraints(min_length=1), AfterValidator(_short)]


class NewDeletionRequest(Body):
    """Which samples to forget, and on what ground."""

    sample_ids: Annotated[
        tuple[SampleId, ...],
        Field(min_length=1, max_length=MOST_SAMPLE_IDS, repr=False),
        AfterValidator(_distinct),
    ] = Field(
        description="Sample IDs as the model's Recipe knows them. Only keyed digests are stored.",
        examples=[["writer-017/scan-00342", "writer-017/scan-00343"]],
    )
    model: Name | None = Field(
        None,
        description="Limit the request to this model; without it, every model that was trained "
        "on any of the samples forgets them.",
        examples=["digits"],
    )
    regulation: Regulation = Field(
        Regulation.GDPR, description="Sets the legal deadline.", examples=["gdpr"]
    )
    reference: Annotated[Text, StringConstraints(max_length=256)] | None = Field(
        None,
        description="Your own reference for the case. Kept as it is: put no personal data here.",
        examples=["case-2041"],
    )
    reason: Annotated[Text, StringConstraints(max_length=2_000)] | None = Field(
        None,
        description="The ground of the request. Kept as it is: put no personal data here.",
        examples=["consent withdrawn"],
    )


class ErasureAnswer(Answer):
    """What became of the request in one model."""

    model: str = Field(examples=["digits"])
    status: ErasureStatus
    sample_count: int = Field(
        description="How many of the samples this model was trained on.", examples=[2]
    )
    job: UUID | None
    problem: str | None = Field(
        description="Why it needs attention; `retry` tries again when that is mended."
    )
    version: VersionName | None = Field(description="The first version published without them.")


class DeletionRequestAnswer(Answer):
    """A deletion request and where it stands."""

    id: UUID
    status: RequestStatus
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None
    sample_count: int = Field(examples=[2])
    received_at: datetime
    due_at: datetime | None
    cancelled_at: datetime | None = Field(description="When it was withdrawn.")
    finished_at: datetime | None
    erasures: list[ErasureAnswer]


class CancellationAnswer(Answer):
    """What a withdrawal achieved."""

    request: DeletionRequestAnswer
    cancelled: list[str] = Field(
        description="Models that will not forget it any more.", examples=[["digits"]]
    )
    too_late: list[str] = Field(
        description="Models that have forgotten it, or are about to: a batch that was taken back "
        "several times is not taken back again.",
        examples=[[]],
    )


class DeletionRequestPage(Answer):
    """Some requests, newest first."""

    items: list[DeletionRequestAnswer]
    next_cursor: str | None


def describe(
    request: DeletionRequest, erasures: Sequence[ErasureView], model: str | None
) -> DeletionRequestAnswer:
    """Return a request as its clients see it."""
    return DeletionRequestAnswer(
        id=request.id,
        status=RequestStatus(request.status),
        model=model,
        regulation=Regulation(request.regulation),
        reference=request.reference,
        reason=request.reason,
        sample_count=request.sample_count,
        received_at=request.received_at,
        due_at=request.due_at,
        cancelled_at=request.cancelled_at,
        finished_at=request.finished_at,
        erasures=[
            ErasureAnswer(
                model=view.model,
                status=ErasureStatus(view.erasure.status),
                sample_count=view.erasure.sample_count,
                job=view.erasure.job_id,
                problem=view.erasure.problem,
                version=version_name(view.version),
            )
            for view in erasures
        ],
    )
