"""What belongs to a client, made straight into the rows; and how to make more of a kind."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

from app.db import transaction
from app.deletions import intake, submissions
from app.tables import Callback, Delivery, SubjectRequest, SubjectRequestStatus
from tests.conftest import ID_KEY


def request_of(client: str) -> UUID:
    submission = submissions.Submission(["a"], None, "gdpr", None, None)  # type: ignore[arg-type]
    asked = submissions.Asked(client, submissions.take_in(submission, ID_KEY.encode()))
    with transaction() as session:
        return intake.submit(session, asked).request.id


def callback_of(client: str) -> UUID:
    row = Callback(client=client, url="https://192.0.2.1/", secret=b"a" * 32)
    with transaction() as session:
        session.add(row)
    return row.id


def delivery_of(client: str) -> UUID:
    row = Delivery(
        client=client, url="https://192.0.2.1/", host="192.0.2.1", event="ping", payload="{}"
    )
    with transaction() as session:
        session.add(row)
    return row.id


def subject_request_of(client: str) -> UUID:
    row = SubjectRequest(
        client=client,
        subject_request_id=uuid4(),
        deletion_request_id=request_of(client),
        origin="https://opendsr.example.com",
        submitted_at=datetime.now(UTC),
        callback_urls=[],
        told_status=SubjectRequestStatus.PENDING,
    )
    with transaction() as session:
        session.add(row)
    return row.subject_request_id


OWNED: dict[str, Callable[[str], UUID]] = {
    "request_id": request_of,
    "callback_id": callback_of,
    "delivery_id": delivery_of,
    "subject_request_id": subject_request_of,
}
