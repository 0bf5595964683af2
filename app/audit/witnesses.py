"""Tell witnesses of each signed head over HTTP, so that they can pin it.

Each is told on a thread of its own, and backs off on its own: none holds up another, or the
scheduler. Of its address the host alone is logged, since the rest may hold a token.
"""

import hashlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
import structlog
from pydantic import SecretStr
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from app.audit import signed_heads
from app.db import now, transaction
from app.settings import settings
from app.tables import WitnessFeed

log = structlog.get_logger()
# It tells the whole address of each request, should anybody listen to it.
logging.getLogger("httpx2").setLevel(logging.WARNING)

TIMEOUT = httpx2.Timeout(10, connect=5)
# As long as nobody else tells a witness that one process has begun to tell.
CLAIM = timedelta(minutes=1)
# After the first failure; doubled for each further one, up to the limit.
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
# What a witness answers that has another head than the one the proof begins at (C2SP tlog-witness).
SIZE_TYPE = "text/x.tlog.size"

_telling: dict[str, threading.Thread] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """What one witness is to be told."""

    url: str = field(repr=False)
    digest: str
    previous_size: int
    size: int
    signed_at: datetime
    body: bytes = field(repr=False)

    @property
    def host(self) -> str | None:
        """All of the address that may be shown."""
        return urlsplit(self.url).hostname


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a witness took the head; which one it has, if it said so; what was wrong, if not."""

    taken: bool
    known_size: int | None = None
    problem: str | None = None


def tell() -> list[threading.Thread]:
    """Begin to tell each witness that lacks the newest signed head; return the threads of that."""
    messages = [message for url in settings().witness_urls if (message := _claim(url)) is not None]
    threads = [
        threading.Thread(target=_tell, args=(message,), name="witness", daemon=True)
        for message in messages
    ]
    for message, thread in zip(messages, threads, strict=True):
        _telling[message.digest] = thread
        thread.start()
    return threads


def _claim(url: SecretStr) -> Message | None:
    digest = hashlib.sha256(url.get_secret_value().encode()).hexdigest()
    earlier = _telling.get(digest)
    if earlier is not None and earlier.is_alive():
        return None
    at = now()
    with transaction() as session:
        session.execute(insert(WitnessFeed).values(url_digest=digest).on_conflict_do_nothing())
        feed = session.scalars(
            select(WitnessFeed)
            .where(
                WitnessFeed.url_digest == digest,
                or_(WitnessFeed.not_before.is_(None), WitnessFeed.not_before <= at),
            )
            .with_for_update(skip_locked=True)
        ).one_or_none()
        signed = signed_heads.latest(session)
        if feed is None or signed is None or not _is_news(feed, signed):
            return None
        feed.not_before = at + CLAIM
        return Message(
            url=url.get_secret_value(),
            digest=digest,
            previous_size=feed.size,
            size=signed.checkpoint.size,
            signed_at=signed.checkpoint.signed_at,
            body=signed_heads.message(session, feed.size, signed),
        )


def _is_news(feed: WitnessFeed, signed: signed_heads.Signed) -> bool:
    told_at = 0.0 if feed.told_at is None else feed.told_at.timestamp()
    return signed.age > (feed.size, told_at)


def _tell(message: Message) -> None:
    try:
        answer = _post(message)
        with transaction() as session:
            feed = session.get_one(WitnessFeed, message.digest, with_for_update=True)
            _note(feed, message, answer)
    except SQLAlchemyError as error:
        log.error("witness.failed", host=message.host, error=type(error).__name__)


def _post(message: Message) -> Answer:
    try:
        with (
            httpx2.Client(timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST",
                message.url,
                content=message.body,
                headers={"Content-Type": "application/json"},
            ) as answer,
        ):
            if answer.is_success:
                return Answer(taken=True)
            known = _known_size(answer) if answer.status_code == HTTPStatus.CONFLICT else None
            return Answer(False, known, f"status {answer.status_code}")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        # The type alone: the words may quote the address.
        return Answer(False, problem=type(error).__name__)


def _known_size(answer: httpx2.Response) -> int | None:
    if answer.headers.get("Content-Type", "").partition(";")[0].strip() != SIZE_TYPE:
        return None
    text = b""
    for part in answer.iter_raw(chunk_size=64):
        text += part
        if len(text) > 64:
            return None
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) < 19 else None


def _note(feed: WitnessFeed, message: Message, answer: Answer) -> None:
    if answer.taken:
        feed.size, feed.told_at = message.size, message.signed_at
        feed.failures, feed.not_before = 0, None
        log.info("witness.told", host=message.host, size=message.size)
        return
    known = answer.known_size
    if known is not None and known != message.previous_size and known <= message.size:
        # An answer of it was lost, or it heard from somebody else: the proof begins there next.
        feed.size, feed.told_at, feed.not_before = known, None, None
        return
    if known is not None and known > message.size:
        log.error("witness.ahead", host=message.host, known=known, size=message.size)
    feed.failures += 1
    # 2**10 of the first pause are beyond the limit already.
    feed.not_before = now() + min(FIRST_PAUSE * 2 ** min(feed.failures - 1, 10), LONGEST_PAUSE)
    log.warning("witness.failed", host=message.host, failures=feed.failures, error=answer.problem)
