"""What models, versions and checkpoints look like on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query
from pydantic import Field

from app.retention.plans import Plan
from app.statuses import ModelStatus, ReferenceStatus, VersionStatus
from app.tables import ModelVersion, ReferenceSet, RegisteredModel
from app.wire import Answer, Body, Digest, Name, VersionName, version_name
from lethe.policy import Policy

# A version's number; the column that it is looked up in holds 64 bits.
Number = Annotated[int, Path(ge=1, lt=2**63)]
After = Annotated[
    int,
    Query(ge=0, lt=2**63, description="`next_after` of the page before; leave out for the first."),
]

_DIGEST = "sha256:" + "5e" * 32


class NewModel(Body):
    """A model to be served: where its code and its weights are."""

    name: Name = Field(examples=["digits"])
    recipe: Name = Field(
        description="Entry point name of an installed Recipe, in the group lethe.recipes.",
        examples=["digits"],
    )
    checkpoint: Digest = Field(
        description="Digest of a checkpoint in the artifact store.", examples=[_DIGEST]
    )
    policy: Policy = Field(Policy(), description="How this model forgets.")


class ModelProblem(Answer):
    """One reason why a model was rejected."""

    code: str = Field(examples=["weights_do_not_fit"])
    message: str = Field(examples=["The checkpoint lacks 1 parameter of the model: fc.bias."])


class UnlearningDebt(Answer):
    """What was forgotten approximately since the last exact version."""

    samples: int = Field(examples=[120])
    share: float = Field(description="Of the training samples at registration.", examples=[0.02])
    drift: float = Field(
        description="Sum of the versions' relative L2 distances from their parents.",
        examples=[0.05],
    )


class ReferencesAnswer(Answer):
    """The reference models, of which only numbers are kept."""

    status: ReferenceStatus
    planned: int = Field(examples=[12])
    done: int = Field(examples=[12])
    seconds: float = Field(description="Time that they took, all together.", examples=[340.5])
    error: str | None


class ModelAnswer(Answer):
    """A registered model."""

    id: UUID
    name: str = Field(examples=["digits"])
    recipe: str = Field(examples=["digits"])
    status: ModelStatus
    problems: list[ModelProblem] = Field(description="Why it was rejected; empty otherwise.")
    checkpoint: str = Field(examples=[_DIGEST])
    policy: Policy
    sample_count: int | None = Field(description="Training samples at registration.")
    data_fingerprint: str | None
    current: VersionName | None
    debt: UnlearningDebt | None
    references: ReferencesAnswer | None = Field(
        description="Null where the policy wants none, or the recipe cannot train."
    )
    created_at: datetime
    checked_at: datetime | None


class ModelPage(Answer):
    """Some models, newest first."""

    items: list[ModelAnswer]
    next_cursor: str | None


class PurgeAnswer(Answer):
    """When a withdrawn version's weights are removed for good."""

    due_at: datetime
    waits_for: list[str] = Field(
        description="What needs a file with the same bytes, once it is due; it goes afterwards.",
        examples=[["digits-eu, version 1"]],
    )


class VersionAnswer(Answer):
    """Immutable weights and where they come from."""

    model: str = Field(examples=["digits"])
    number: int = Field(examples=[2])
    digest: str = Field(examples=[_DIGEST])
    size_bytes: int = Field(examples=[78_124])
    status: VersionStatus
    parent_digest: str | None
    job: UUID | None
    method: str | None = Field(examples=["nabla_tau"])
    guarantee: str | None = Field(
        description="`exact` for weights retrained without the data, `approximate` for others; "
        "null for the weights that were registered.",
        examples=["approximate"],
    )
    verdict: str | None = Field(
        description="`passed`, or `inconclusive` where the policy publishes that; null for the "
        "weights that were registered.",
        examples=["passed"],
    )
    created_at: datetime
    withdrawn_at: datetime | None
    purge: PurgeAnswer | None = Field(description="Null unless the version is withdrawn.")
    purged_at: datetime | None


class VersionPage(Answer):
    """Versions of a model, oldest first: one chain."""

    items: list[VersionAnswer]
    next_after: int | None = Field(
        description="`after` of the next page; null if this is the last.", examples=[None]
    )


class CheckpointAnswer(Answer):
    """A checkpoint that is durable in the artifact store."""

    digest: str = Field(examples=[_DIGEST])
    size_bytes: int = Field(examples=[78_124])


def describe_model(
    model: RegisteredModel, current: ModelVersion | None, references: ReferenceSet | None
) -> ModelAnswer:
    """Return a model as its readers see it."""
    return ModelAnswer(
        id=model.id,
        name=model.name,
        recipe=model.recipe,
        status=ModelStatus(model.status),
        problems=[ModelProblem(**problem) for problem in model.problems or []],
        checkpoint=model.checkpoint_digest,
        policy=Policy.model_validate(model.policy),
        sample_count=model.sample_count,
        data_fingerprint=model.data_fingerprint,
        current=version_name(current),
        debt=None if current is None else _debt(model, current),
        references=None if references is None else _references(references),
        created_at=model.created_at,
        checked_at=model.checked_at,
    )


def describe_versions(
    model: str, versions: list[ModelVersion], purges: Mapping[UUID, Plan]
) -> list[VersionAnswer]:
    """Return versions as their readers see them; the list holds the parents that are shown."""
    digests = {version.id: version.digest for version in versions}
    return [
        VersionAnswer(
            model=model,
            number=version.number,
            digest=version.digest,
            size_bytes=version.size_bytes,
            status=VersionStatus(version.status),
            parent_digest=None if version.parent_id is None else digests.get(version.parent_id),
            job=version.job_id,
            method=version.method,
            guarantee=version.guarantee,
            verdict=version.verdict,
            created_at=version.created_at,
            withdrawn_at=version.withdrawn_at,
            purge=_purge(purges.get(version.id)),
            purged_at=version.purged_at,
        )
        for version in versions
    ]


def _debt(model: RegisteredModel, current: ModelVersion) -> UnlearningDebt:
    share = current.debt_samples / model.sample_count if model.sample_count else 0.0
    return UnlearningDebt(samples=current.debt_samples, share=share, drift=current.debt_drift)


def _purge(plan: Plan | None) -> PurgeAnswer | None:
    if plan is None:
        return None
    return PurgeAnswer(due_at=plan.due_at, waits_for=list(plan.waits_for))


def _references(found: ReferenceSet) -> ReferencesAnswer:
    return ReferencesAnswer(
        status=ReferenceStatus(found.status),
        planned=found.planned,
        done=found.done,
        seconds=found.seconds,
        error=found.error,
    )
