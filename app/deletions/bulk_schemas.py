"""What the lines of a bulk intake look like on the wire."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from app.deletions.schemas import NewDeletionRequest
from app.problems import Problem
from app.wire import Answer, Text


class NewDeletionRequestLine(NewDeletionRequest):
    """One line of a bulk intake: a deletion request, which may bring a key of its own."""

    idempotency_key: Annotated[Text, StringConstraints(min_length=1, max_length=255)] | None = (
        Field(
            None,
            description="As the header of a single request. Without it the line's key follows from "
            "the stream's and the line's number.",
            repr=False,
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
        )
    )


class LineTaken(Answer):
    """A line whose request is stored for good."""

    line: int = Field(examples=[1])
    status: Literal[202] = 202
    id: UUID
    repeated: bool = Field(description="Whether it was stored before, by an earlier stream.")


class LineRefused(Answer):
    """A line of which nothing is stored."""

    line: int = Field(examples=[2])
    problem: Problem


class StreamTaken(Answer):
    """The last line: every line was answered."""

    lines: int = Field(examples=[3])
    accepted: int = Field(description="Stored by this stream.", examples=[1])
    repeated: int = Field(description="Stored before.", examples=[1])
    refused: int = Field(examples=[1])


class StreamBroken(Answer):
    """The last line of a stream that was given up: send it again, with the same key."""

    problem: Problem
