"""What tests do with messages to the outside, as services and senders do."""

from datetime import UTC, datetime
from uuid import UUID

from app.db import transaction
from app.webhooks import outbox, outcomes
from app.webhooks.delivering import Senders
from app.webhooks.outbox import Message
from app.webhooks.outcomes import Failure, Outcome, Recorded

SECRET = b"s3cr3t-of-32-bytes-and-no-others"
AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
TARGET = "/hooks/MARKED?token=MARKED"


def enqueue(port: int, host: str = "127.0.0.1", number: int = 0) -> UUID:
    url = f"http://{host}:{port}{TARGET}"
    with transaction() as session:
        return outbox.enqueue(session, url, SECRET, "test.event", AT, {"number": number})


def claim(*busy: str) -> Message | None:
    with transaction() as session:
        return outbox.claim(session, busy)


def claimed() -> Message:
    message = claim()
    assert message is not None
    return message


def record(message: Message, failure: Failure | None) -> Recorded:
    with transaction() as session:
        return outcomes.record(session, message, Outcome(AT, 0.25, None, failure))


def send_all(senders: Senders | None = None) -> None:
    """Send what is due, and wait for it."""
    for thread in (senders or Senders()).start():
        thread.join(timeout=20)
        assert not thread.is_alive()
