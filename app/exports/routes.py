"""Exports for an authority, over HTTP."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from app.db import now, transaction
from app.errors import Invalid
from app.exports import formats, summary
from app.exports.formats import MEDIA_TYPES, Format
from app.exports.records import Period, records
from app.problems import responses
from app.security import Auditor
from app.wire import COMMON, Answer, Moment

router = APIRouter(prefix="/v1/exports", tags=["exports"], responses=responses(*COMMON))

Since = Annotated[
    Moment, Query(alias="from", description="Requests received at this moment or later.")
]
Until = Annotated[Moment, Query(alias="to", description="Requests received before this moment.")]
Written = Annotated[Format, Query(alias="format")]

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/jsonl": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
        "description": "One line for each request, oldest first.",
    }
}


class YearAnswer(Answer):
    """The requests received in one calendar year (UTC) under one regulation."""

    year: int = Field(examples=[2026])
    regulation: str = Field(examples=["gdpr"])
    received: int
    complied: int
    complied_in_part: int
    nothing_found: int
    denied: int
    withdrawn: int
    open: int
    overdue: int = Field(description="Answered after their deadline, or open past it.")
    median_days: float | None = Field(
        description="From receipt to response; null where none was answered."
    )


class SummaryAnswer(Answer):
    """Yearly numbers."""

    years: list[YearAnswer]


@router.get("/requests", response_class=StreamingResponse, responses=_FILE)
def requests(
    _: Auditor, since: Since, until: Until, written: Written = Format.JSONL
) -> StreamingResponse:
    """Stream how each request of a period was handled, for GDPR Art. 5(2) and 11 CCR § 7101."""
    period = _period(since, until)
    return StreamingResponse(
        formats.write(records(period, now()), written),
        media_type=MEDIA_TYPES[written],
        headers={"Content-Disposition": f'attachment; filename="deletion-requests.{written}"'},
    )


@router.get("/summary")
def yearly(_: Auditor, since: Since, until: Until) -> SummaryAnswer:
    """Count the requests of a period by year and regulation, with median days (11 CCR § 7102)."""
    with transaction() as session:
        rows = summary.years(session, _period(since, until))
    return SummaryAnswer(years=[YearAnswer(**asdict(row)) for row in rows])


def _period(since: datetime, until: datetime) -> Period:
    if since >= until:
        raise Invalid("`from` lies before `to`.")
    return Period(since, until)
