"""What deletion requests look like on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from app.db import now
from app.deletions import clocks
from app.deletions.clocks import PauseGround, Regulation
from app.deletions.forecasts import Forecast, Level
from app.deletions.laws import law_of
from app.deletions.service import ErasureView
from app.deletions.submissions import Submission
from app.errors import NoCustomClock
from app.privacy import LONGEST_SAMPLE_ID_BYTES
from app.settings import settings
from app.statuses import DenialReason, ErasureStatus, RequestStatus
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
        Field(
            min_length=1,
            max_length=MOST_SAMPLE_IDS,
            repr=False,
            json_schema_extra={"uniqueItems": True},
        ),
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

    def submission(self) -> Submission:
        """Return what is asked for, as the intake takes it."""
        return Submission(self.sample_ids, self.model, self.regulation, self.reference, self.reason)


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


class BreachRisk(Answer):
    """How likely the deadline is missed, and why one thinks so."""

    level: Level = Field(
        description="`high`: jobs that take as long as half of the earlier ones end too late; "
        "`medium`: those that take as long as nine in ten do; `unknown`: nothing is measured yet."
    )
    expected_at: datetime | None = Field(
        description="When it is expected to be done, by the minute; null where that is unknown or "
        "up to a person."
    )
    late_at: datetime | None = Field(description="The same, if its jobs take long.")
    detail: str = Field(examples=["It waits for an approval."])


class DeletionRequestAnswer(Answer):
    """A deletion request and where it stands."""

    id: UUID
    status: RequestStatus
    client: str = Field(description="Who sent it.", examples=["crm"])
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None
    sample_count: int = Field(examples=[2])
    received_at: datetime
    due_at: datetime | None = Field(
        description="The legal deadline. While the clock stands still it stands where it was when "
        "that began; it moves when the clock goes on."
    )
    days_left: int | None = Field(
        description="Calendar days until the deadline, in the service's time zone; 0 on its day, "
        "negative after it. Null without a deadline, and for a finished request.",
        examples=[29],
    )
    extended_at: datetime | None
    paused_at: datetime | None = Field(description="Since when the clock stands still.")
    pause_ground: PauseGround | None
    confirm_by: datetime | None = Field(
        description="Until when receipt is to be confirmed; null where no law asks for it."
    )
    confirmed_at: datetime | None
    held_at: datetime | None = Field(description="Since when it waited for an approval.")
    approved_at: datetime | None = Field(
        description="When somebody approved it; null where none had to."
    )
    rejected_at: datetime | None
    rejection: DenialReason | None = Field(description="Why it was rejected.")
    cancelled_at: datetime | None = Field(description="When it was withdrawn.")
    finished_at: datetime | None
    breach_risk: BreachRisk | None = Field(
        description="Null for a finished request, and in the answer to its submission."
    )
    erasures: list[ErasureAnswer]


class RejectionAnswer(Answer):
    """What a rejection achieved."""

    request: DeletionRequestAnswer
    rejected: list[str] = Field(
        description="Models that will not forget it on this request.", examples=[["digits"]]
    )
    too_late: list[str] = Field(
        description="Models that have forgotten it, or are about to.", examples=[[]]
    )


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
    request: DeletionRequest,
    erasures: Sequence[ErasureView],
    model: str | None,
    forecast: Forecast | None = None,
) -> DeletionRequestAnswer:
    """Return a request as its clients see it."""
    return DeletionRequestAnswer(
        id=request.id,
        status=RequestStatus(request.status),
        client=request.client,
        model=model,
        regulation=Regulation(request.regulation),
        reference=request.reference,
        reason=request.reason,
        sample_count=request.sample_count,
        received_at=request.received_at,
        due_at=request.due_at,
        days_left=_days_left(request),
        extended_at=request.extended_at,
        paused_at=request.paused_at,
        pause_ground=None if request.pause_ground is None else PauseGround(request.pause_ground),
        confirm_by=_confirm_by(request),
        confirmed_at=request.confirmed_at,
        held_at=request.held_at,
        approved_at=request.approved_at,
        rejected_at=request.rejected_at,
        rejection=None if request.rejection is None else DenialReason(request.rejection),
        cancelled_at=request.cancelled_at,
        finished_at=request.finished_at,
        breach_risk=None if forecast is None else _risk(forecast),
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


def _days_left(request: DeletionRequest) -> int | None:
    if request.due_at is None or request.finished_at is not None:
        return None
    return clocks.days_left(request.due_at, request.paused_at or now(), settings().time_zone)


def _confirm_by(request: DeletionRequest) -> datetime | None:
    try:
        law = law_of(Regulation(request.regulation))
    except NoCustomClock:  # configured when the request came, and not any more
        return None
    return clocks.confirm_by(law, request.received_at, settings().time_zone)


def _risk(forecast: Forecast) -> BreachRisk:
    return BreachRisk(
        level=forecast.level,
        expected_at=forecast.expected_at,
        late_at=forecast.late_at,
        detail=forecast.detail,
    )
