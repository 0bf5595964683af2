"""A model's policy: when its erasures are batched, which methods are tried, what must hold.

One place for the options of every method and their defaults, shared by whoever sends a policy,
the API that stores it and the worker that follows it. Needs neither torch nor the server.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MethodName = Literal["iau", "nabla_tau", "retrain"]
Guarantee = Literal["exact", "approximate"]
Outcome = Literal["passed", "failed", "inconclusive"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IauOptions(_Options):
    """Options of ``iau``; the defaults are those of the official code (arXiv 2507.23257)."""

    rule: Literal["adam", "sgd", "calibrated"] = Field(
        "adam",
        description="One fresh Adam step, as published; one plain gradient step; or a gradient "
        "step just long enough for the forget loss to meet its target.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        1e-3, description="Step size of `adam` and `sgd`; `calibrated` finds its own."
    )
    utility_budget: Annotated[float, Field(ge=0)] = Field(
        0.03, description="Metric that a `calibrated` step may lose on validation data."
    )


class NablaTauOptions(_Options):
    """Options of ``nabla_tau``; what is left open follows from ``targets``.

    With ``validation`` the defaults are those of the official CIFAR code (arXiv 2403.14339).
    """

    targets: Literal["auto", "validation", "per_sample"] = Field(
        "auto",
        description="What the loss of a forgotten sample is raised to: the mean loss of unseen "
        "data, as published, or its own expected loss under references that never saw it. `auto` "
        "takes the latter where the model has references.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None,
        description="Null for 1e-3 with `validation`; with `per_sample`, for 1.5e-3, or 1.75e-3 "
        "where so much is forgotten that records rest.",
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None,
        description="Of both sets; null for 256 with `validation`; with `per_sample`, for 64 "
        "retained and 64 to 512 forgotten records, more of them the more there are.",
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="Passes over the forget set; null for int(3·|retain|/|forget|) loaders with "
        "`validation`; with `per_sample`, for as many as make six fifths of a pass over the "
        "retained data or 30 steps, at most 15.",
    )
    alpha_start: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="α₀; null for (5/3)·|D_f|/|D|, at most 1, falling from epoch to epoch, with "
        "`validation`; with `per_sample`, for a constant that grows with the share to forget, one "
        "half at about a twentieth.",
    )
    refresh_epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    network_mode: Literal["eval", "train"] = "eval"


class MethodOptions(_Options):
    """Options by method; what is left out keeps its default."""

    iau: IauOptions = IauOptions()
    nabla_tau: NablaTauOptions = NablaTauOptions()


def _within_a_year(value: timedelta) -> timedelta:
    if value < timedelta(0) or value > timedelta(days=365):
        raise ValueError("must lie between nothing and 365 days")
    return value


class Batching(_Options):
    """When pending erasures become a job: as soon as any one of the bounds is reached."""

    max_samples: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1_000, description="Samples in a job; an erasure is never split, so one alone may exceed."
    )
    max_wait: timedelta = Field(
        timedelta(hours=1), description="Longest wait of the oldest pending erasure."
    )
    deadline_headroom: timedelta = Field(
        timedelta(days=3), description="Start no later than this before the nearest deadline."
    )

    min_spacing: timedelta = Field(
        timedelta(0),
        description="Shortest time from one job of the model to the next, deadlines permitting.",
    )
    max_splits: Annotated[int, Field(ge=0, le=10_000)] = Field(
        32,
        description="Parts that a batch which failed may be split into, half by half, to find the "
        "erasures that it failed for; 0 never splits.",
    )

    @field_validator("max_wait", "deadline_headroom", "min_spacing")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        return _within_a_year(value)


class Bounds(_Options):
    """What a new version must show to be published."""

    leak_margin: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="Attack AUC may differ from one half by at most this, interval included."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.95, description="Of each one-sided test; intervals are two-sided at 2·confidence − 1."
    )
    leak_left: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of the leak that attacks find in the parent which an approximate method "
        "may leave, however small it is beside the margin; 1 for any.",
    )
    utility_budget: Annotated[float, Field(ge=0)] = Field(
        0.03, description="Loss allowed in the recipe's metric, on retained and on holdout data."
    )


class Verdicts(_Options):
    """What follows from a verdict; a version that passed is published."""

    inconclusive: Literal["climb", "publish", "stop"] = Field(
        "climb",
        description="When a batch is too small to show anything: try the next method, publish "
        "and say so in the version and its receipts, or stop and ask for attention.",
    )
    failed: Literal["climb", "stop"] = Field(
        "climb", description="Try the next method, or stop; what failed is never published."
    )


class References(_Options):
    """Models trained on random halves of the data, of which only numbers are kept.

    They say what each sample's loss is under models that never saw it: the targets of
    ``nabla_tau`` and the judges of the calibrated attack. Each costs half a training.
    """

    count: Annotated[int, Field(ge=0, le=256, multiple_of=4)] = Field(
        12, description="Half of them give targets, half judge; 0 for none."
    )
    max_delay: timedelta = Field(
        timedelta(days=1), description="Longest that erasures wait for references under way."
    )

    @field_validator("max_delay")
    @classmethod
    def _within_a_year(cls, value: timedelta) -> timedelta:
        return _within_a_year(value)


class Debt(_Options):
    """How much a model may forget approximately before it is retrained exactly."""

    max_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Share of the training data forgotten since the last exact version."
    )
    max_drift: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description="Sum of the versions' relative L2 distances from their parents since then.",
    )


class Retention(_Options):
    """How long a superseded version is kept, which still holds what was forgotten."""

    purge_after: timedelta = Field(
        timedelta(days=7),
        description="From a version's withdrawal to the irreversible removal of its weights and of "
        "what was computed from them. Until then a job can be repeated for an audit.",
    )

    @field_validator("purge_after")
    @classmethod
    def _within_a_year(cls, value: timedelta) -> timedelta:
        return _within_a_year(value)


class Review(_Options):
    """Which requests wait until somebody approves them; one approval holds for all models."""

    approval: Literal["automatic", "manual"] = Field(
        "automatic", description="`manual` holds every request that concerns this model."
    )
    hold_above: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Hold those alone that name more samples than this; null for none."
    )

    def holds(self, samples: int) -> bool:
        """Tell whether a request that names so many samples waits for an approval."""
        beyond = self.hold_above is not None and samples > self.hold_above
        return self.approval == "manual" or beyond


class Policy(_Options):
    """How one model forgets."""

    batching: Batching = Batching()
    ladder: Annotated[
        tuple[MethodName, ...],
        Field(min_length=1, max_length=8, json_schema_extra={"uniqueItems": True}),
    ] = (
        "iau",
        "nabla_tau",
        "retrain",
    )
    options: MethodOptions = MethodOptions()
    bounds: Bounds = Bounds()
    verdicts: Verdicts = Verdicts()
    references: References = References()
    debt: Debt = Debt()
    retention: Retention = Retention()
    review: Review = Review()

    @field_validator("ladder")
    @classmethod
    def _each_rung_once(cls, value: tuple[MethodName, ...]) -> tuple[MethodName, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names each method at most once")
        return value
