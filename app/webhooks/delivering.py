"""Send what is due: several at once, one to a host, and off the way of whoever asks for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

import structlog
from sqlalchemy.exc import DBAPIError

from app.db import now, transaction
from app.errors import AddressRefused
from app.settings import settings
from app.webhooks import addresses, outbox, outcomes, sending, signers
from app.webhooks.outbox import Message
from app.webhooks.outcomes import Failure, Outcome

log = structlog.get_logger()

# Slow receivers that are waited for at the same time; all others wait behind them.
MOST_AT_ONCE = 8
# A pass begins no further message after this, nor more of them than this; the next pass does.
PASS_SECONDS = 60.0
MOST_IN_A_PASS = 500

GONE = 410
USER_AGENT = f"Lethe/{version('lethe')}"


def attempt(message: Message) -> Outcome:
    """Send a message once."""
    began_at, clock = now(), time.monotonic()
    answer, failure = _send(message, int(began_at.timestamp()))
    seconds = time.monotonic() - clock
    return Outcome(began_at, seconds, None if answer is None else answer.status, failure)


def deliver(message: Message) -> None:
    """Send a message once, and note and log what came of it; the log names the host alone."""
    outcome = attempt(message)
    with transaction() as session:
        recorded = outcomes.record(session, message, outcome)
    told = {
        "delivery": str(message.id),
        "event_type": message.event,
        "host": message.host,
        "attempt": message.attempt,
    }
    failure = outcome.failure
    if failure is None:
        log.info("delivery.taken", **told)
    elif recorded.ended:
        log.error("delivery.given_up", **told, problem=failure.problem)
    else:
        log.warning("delivery.failed", **told, problem=failure.problem)
    if recorded.disabled:
        log.error("callback.disabled", callback=str(message.callback_id), host=message.host)


def _send(message: Message, at: int) -> tuple[sending.Answered | None, Failure | None]:
    allowed = settings().webhook_private_networks or ()
    try:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **signers.headers(message, at),
        }
        # Again, since what is allowed may have changed since it was stored.
        address = addresses.parse(
            message.url, plain_http=settings().mode == "embedded", allowed=allowed
        )
        answer = sending.post(address, headers, message.body, allowed)
    except AddressRefused:
        return None, Failure("address refused")
    except (sending.NotSent, signers.CannotSign) as error:
        return None, Failure(str(error))
    if 200 <= answer.status < 300:
        return answer, None
    problem = f"status {answer.status}"
    return answer, Failure(problem, answer.status == GONE, answer.retry_after)


@dataclass(slots=True)
class Senders:
    """The threads of this process that send messages; they end when nothing is due."""

    most: int = MOST_AT_ONCE
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[threading.Thread] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

    def start(self) -> list[threading.Thread]:
        """See that threads are at work where anything is due; return them. Waits for none of them.

        Raises:
            sqlalchemy.exc.DBAPIError: the database does not answer.

        """
        with transaction() as session:
            due = outbox.count_due(session, self.most)
        with self._lock:
            self._running = [thread for thread in self._running if thread.is_alive()]
            for _ in range(min(due, self.most - len(self._running))):
                # Daemons: a process that is to end does not wait for a receiver. What it was
                # sending is sent again.
                thread = threading.Thread(target=self._work, name="sender", daemon=True)
                self._running.append(thread)
                thread.start()
            return list(self._running)

    def _work(self) -> None:
        ends_at = time.monotonic() + PASS_SECONDS
        try:
            for _ in range(MOST_IN_A_PASS):
                with self._claimed() as message:
                    if message is None:
                        return
                    deliver(message)
                if time.monotonic() >= ends_at:
                    return
        except DBAPIError as error:
            log.error("delivery.interrupted", error=type(error).__name__)
        except Exception as error:  # noqa: BLE001  # a fault with one must not be silent
            log.error("delivery.broke_off", error=type(error).__name__)

    @contextmanager
    def _claimed(self) -> Iterator[Message | None]:
        with self._lock, transaction() as session:
            message = outbox.claim(session, self._busy)
            if message is not None:
                self._busy.add(message.host)
        try:
            yield message
        finally:
            if message is not None:
                with self._lock:
                    self._busy.discard(message.host)
