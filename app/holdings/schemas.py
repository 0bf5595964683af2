"""What versions hold, on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path
from pydantic import Field

from app.holdings.service import Holding
from app.tables import Erasure, ModelVersion
from app.wire import Answer, VersionName, version_name

SampleDigest = Annotated[
    str,
    Path(
        pattern="^[0-9a-f]{64}$",
        description="The sample's keyed digest, as receipts name it: lower-case hexadecimal.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


class DeletionInVersion(Answer):
    """What one request had removed."""

    request: UUID
    sample_count: int = Field(examples=[2])
    forgotten_in: VersionName = Field(description="The version that its erasure ended in.")
    finished_at: datetime


class DeletionPage(Answer):
    """Some of the deletions that a version includes, newest first."""

    retained: int | None = Field(
        description="Training samples that the version commits to; null for versions from before "
        "there were commitments."
    )
    commitment: str | None = Field(description="The sparse Merkle root over them.")
    items: list[DeletionInVersion]
    next_cursor: str | None


class SampleInModel(Answer):
    """One model that was trained on the sample."""

    model: str = Field(examples=["digits"])
    in_current: bool = Field(description="Whether the current version was trained on it still.")
    in_version: bool | None = Field(
        description="The same of the version that was asked about; null without one, or where it "
        "is another model's."
    )
    forgotten_in: VersionName | None = Field(
        description="The first version without it; every earlier one was trained on it."
    )


class SampleAnswer(Answer):
    """Every model that was ever trained on a sample; none where no model ever was."""

    models: list[SampleInModel]


def describe_deletion(erasure: Erasure, version: ModelVersion) -> DeletionInVersion:
    """Return a completed erasure as part of a version."""
    named = version_name(version)
    if named is None or erasure.finished_at is None:
        raise RuntimeError(f"erasure {erasure.id} is completed and has no version or no end")
    return DeletionInVersion(
        request=erasure.request_id,
        sample_count=erasure.sample_count,
        forgotten_in=named,
        finished_at=erasure.finished_at,
    )


def describe_holding(holding: Holding, asked: list[ModelVersion]) -> SampleInModel:
    """Return what one model has of a sample; ``asked`` are the versions of the digest asked for."""
    gone = holding.forgotten_by
    numbers = [version.number for version in asked if version.model_id == holding.model.id]
    return SampleInModel(
        model=holding.model.name,
        in_current=gone is None,
        in_version=any(gone is None or number < gone.number for number in numbers)
        if numbers
        else None,
        forgotten_in=version_name(gone),
    )
