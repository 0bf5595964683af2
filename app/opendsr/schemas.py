"""What OpenDSR looks like on the wire, as far as this service supports it."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field
from pydantic import StringConstraints as Constraints

from app.deletions.schemas import MOST_SAMPLE_IDS, SampleId
from app.opendsr.signing import API_VERSION
from app.statuses import DenialReason, RequestStatus
from app.tables import SubjectRequestStatus
from app.webhooks.addresses import LONGEST
from app.wire import Answer, Body, Name, Text, UtcMoment

MOST_CALLBACKS = 5

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _distinct(urls: Sequence[str]) -> Sequence[str]:
    if len(set(urls)) < len(urls):
        raise ValueError("names each address once")
    return urls


SubjectRequestId = Annotated[
    str,
    Constraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
    Field(
        description="A UUID of version 4 in lower case, made by the controller.",
        examples=["a7551968-d5d6-44b2-9831-815ac9017798"],
    ),
]
CallbackUrl = Annotated[Text, Constraints(min_length=1, max_length=LONGEST)]


class Identity(Body):
    """A sample, by the ID that the model's Recipe knows it by."""

    # What a later minor version adds is no reason to refuse.
    model_config = ConfigDict(extra="ignore", frozen=True)

    identity_type: Literal["controller_customer_id"]
    identity_value: SampleId = Field(repr=False, examples=["writer-017/scan-00342"])
    identity_format: Literal["raw"] = Field(
        description="A hash would not do: what is stored is a keyed digest of the ID itself."
    )


class Extension(Body):
    """What a request has for this processor alone."""

    sample_ids: tuple[SampleId, ...] = Field((), max_length=MOST_SAMPLE_IDS, repr=False)
    model: Name | None = Field(None, description="Limits the request to this model.")


class NewRequest(Body):
    """An erasure that a controller asks for."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "anyOf": [{"required": ["subject_identities"]}, {"required": ["extensions"]}]
        },
    )

    regulation: Literal["gdpr", "ccpa"] = Field(description="Sets the legal deadline.")
    subject_request_id: SubjectRequestId
    subject_request_type: Literal["erasure"]
    subject_identities: tuple[Identity, ...] = Field((), max_length=MOST_SAMPLE_IDS, repr=False)
    submitted_time: UtcMoment = Field(
        description="When the person asked the controller. The deadline is counted from the "
        "receipt here.",
        examples=["2026-11-02T15:00:00Z"],
    )
    api_version: Annotated[str, Constraints(pattern=r"^2(\.[0-9]{1,4}){0,2}$")] | None = None
    status_callback_urls: Annotated[
        tuple[CallbackUrl, ...], Field(max_length=MOST_CALLBACKS), AfterValidator(_distinct)
    ] = Field((), repr=False, examples=[["https://controller.example.com/opendsr/callbacks"]])
    extensions: dict[str, Any] = Field(
        {},
        repr=False,
        description="By the domain of a processor; this one's may have `sample_ids` and `model`. "
        "Those of others are not looked at.",
        examples=[{"opendsr.example.com": {"sample_ids": ["writer-017/scan-00343"]}}],
    )


class SubmissionAnswer(Answer):
    """The receipt of a request."""

    controller_id: str = Field(description="The client of the key that was sent.")
    expected_completion_time: datetime = Field(description="The legal deadline.")
    received_time: datetime
    encoded_request: str = Field(
        repr=False, description="The body as it came, in base64. Not to be logged or stored."
    )
    subject_request_id: UUID
    processor_signature: str = Field(
        description="Over the canonical JSON (RFC 8785) of this answer without this member and "
        "without `encoded_request`."
    )


class CancellationAnswer(Answer):
    """The receipt of a cancellation."""

    controller_id: str
    received_time: datetime
    subject_request_id: UUID
    api_version: str = API_VERSION
    processor_signature: str = Field(
        description="Over the canonical JSON (RFC 8785) of this answer without this member."
    )


class Own(Answer):
    """What this processor says in its own words."""

    deletion_request: UUID = Field(description="Its id below `/v1/deletion-requests`.")
    status: RequestStatus
    reason: DenialReason | None = Field(None, description="Why it was rejected.")


class StatusAnswer(Answer):
    """Where a request stands."""

    controller_id: str
    expected_completion_time: datetime = Field(
        description="The legal deadline; when it ended, once it has."
    )
    subject_request_id: UUID
    request_status: SubjectRequestStatus
    api_version: str = API_VERSION
    results_url: str | None = Field(None, description="Its receipt, once it has ended.")
    results_count: int | None = Field(
        None, description="How many of the samples some model held, once it is completed."
    )
    extensions: dict[str, Own]


class SupportedIdentity(Answer):
    """A kind of identity that is understood."""

    identity_type: Literal["controller_customer_id"] = "controller_customer_id"
    identity_format: Literal["raw"] = "raw"


class Discovery(Answer):
    """What this processor supports."""

    api_version: str = API_VERSION
    supported_identities: tuple[SupportedIdentity, ...] = (SupportedIdentity(),)
    supported_subject_request_types: tuple[Literal["erasure"], ...] = ("erasure",)
    processor_certificate: str = Field(
        description="Where the certificate of the signatures is.",
        examples=["https://opendsr.example.com/opendsr/2.0/certificate"],
    )


class Availability(Answer):
    """Requests can be stored."""

    api_version: str = API_VERSION
    status: Literal["available"] = "available"
