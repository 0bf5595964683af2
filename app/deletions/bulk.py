"""Take the lines of a bulk intake in, in transactions of bounded size, and answer each of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app import problems, queue
from app.crash_points import CrashPoint, reach
from app.deletions import intake, submissions
from app.deletions.bulk_schemas import NewDeletionRequestLine, StreamTaken
from app.deletions.storing import is_away, store
from app.errors import ContentTooLarge, Invalid, LetheError, Malformed, Unavailable
from app.privacy import digest_for

log = structlog.get_logger()

# Of one transaction: it holds locks, and an answer is written only after its commit.
MOST_LINES = 1_000
MOST_SAMPLES = 20_000


@dataclass(frozen=True, slots=True, repr=False)
class Line:
    """One line of the stream, counted from 1 on."""

    number: int
    content: bytes | None
    """None if it was longer than a line may be."""


@dataclass(frozen=True, slots=True, repr=False)
class Origin:
    """Whose stream it is, and what its lines' keys are made of."""

    client: str
    key: str
    id_key: bytes

    def key_digest(self, number: int, own: str | None) -> bytes:
        """Return the digest under which a line is known when it comes again."""
        if own is not None:
            return submissions.key_digest(own, self.id_key)
        return digest_for(self.id_key, "bulk-line", f"{number} {self.key}".encode())


@dataclass(slots=True)
class Tally:
    """How many lines were answered, and how."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0

    def last_line(self) -> bytes:
        """Return what tells a client that no answer is missing."""
        lines = self.accepted + self.repeated + self.refused
        told = StreamTaken(
            lines=lines, accepted=self.accepted, repeated=self.repeated, refused=self.refused
        )
        return told.model_dump_json().encode() + b"\n"


def take(lines: Sequence[Line], origin: Origin, tally: Tally) -> Iterator[bytes]:
    """Store what lines ask for; yield their answers, in order, each after its commit.

    Raises:
        Unavailable: the database cannot store anything; the lines that are not answered yet are
            not stored, or will be answered as repeated.

    """
    together: list[tuple[int, submissions.Asked | bytes]] = []
    samples = 0
    for line in lines:
        asked = _read(line, origin)
        count = 0 if isinstance(asked, bytes) else len(asked.intake.sample_digests)
        if together and (samples + count > MOST_SAMPLES or len(together) == MOST_LINES):
            yield _store(together, tally)
            together, samples = [], 0
        together.append((line.number, asked))
        samples += count
    if together:
        yield _store(together, tally)


def _read(line: Line, origin: Origin) -> submissions.Asked | bytes:
    """Return what a line asks for, or the problem with it."""
    if line.content is None:
        return _problem(ContentTooLarge("The line is too long; split its request."))
    try:
        body = NewDeletionRequestLine.model_validate_json(line.content)
    except ValidationError as error:
        return _invalid(error)
    taken_in = submissions.take_in(body.submission(), origin.id_key)
    key_digest = origin.key_digest(line.number, body.idempotency_key)
    return submissions.Asked(origin.client, taken_in, key_digest)


def _store(together: Sequence[tuple[int, submissions.Asked | bytes]], tally: Tally) -> bytes:
    asked = [one for _, one in together if not isinstance(one, bytes)]
    outcomes = iter(store(asked, _described, _nudge) if asked else ())
    answers: list[bytes] = []
    for number, one in together:
        outcome = one if isinstance(one, bytes) else next(outcomes)
        if isinstance(outcome, tuple):
            id_, is_new = outcome
            tally.accepted += is_new
            tally.repeated += not is_new
            answers.append(
                b'{"line":%d,"status":202,"id":"%s","repeated":%s}\n'
                % (number, str(id_).encode(), b"false" if is_new else b"true")
            )
        else:
            tally.refused += 1
            problem = outcome if isinstance(outcome, bytes) else _refusal(outcome)
            answers.append(b'{"line":%d,"problem":%s}\n' % (number, problem))
    return b"".join(answers)


def _nudge() -> None:
    reach(CrashPoint.SUBMIT_BEFORE_NUDGE)
    queue.nudge(queue.PLAN)


def _described(_: Session, taken: Sequence[intake.Taken]) -> list[tuple[UUID, bool]]:
    return [(one.request.id, one.is_new) for one in taken]


def _refusal(error: Exception) -> bytes:
    if isinstance(error, LetheError):
        return _problem(error)
    if is_away(error):
        log.error("database.unavailable", error=type(error).__name__)
        raise Unavailable("Not all was stored. Send the same stream again.") from error
    log.error("bulk.failed", error=type(error).__name__)
    detail = "The error was logged. Nothing of this line was stored."
    return bytes(problems.respond(500, "internal", "Internal error", detail).body)


def _problem(error: LetheError) -> bytes:
    return bytes(problems.respond(error.status, error.slug, error.title, error.detail).body)


def _invalid(error: ValidationError) -> bytes:
    found = error.errors(include_input=False, include_context=False, include_url=False)
    if any(problem["type"] == "json_invalid" for problem in found):
        return _problem(Malformed("The line is not JSON in UTF-8."))
    # Only the place and the rule, as for a single request.
    listed = [
        {"pointer": _pointer(problem), "message": str(problem["msg"])} for problem in found[:100]
    ]
    answer = problems.respond(
        Invalid.status, Invalid.slug, Invalid.title, "See errors.", field_problems=listed
    )
    return bytes(answer.body)


def _pointer(problem: Mapping[str, Any]) -> str:
    place = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        place = place[:-1]  # the name of an unknown member is the client's own word
    return "".join("/" + str(part) for part in place)
