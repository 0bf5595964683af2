"""A model's policy: when its erasures are batched, which methods are tried, what must hold.

One place for the options of every method and their defaults, shared by whoever sends a policy,
the API that stores it and the worker that follows it. Needs neither torch nor the server.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MethodName = Literal["iau", "nabla_tau", "retrain"]
Guarantee = Literal["exact", "approximate"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IauOptions(_Options):
    """Options of ``iau``; the defaults are those of the official code (arXiv 2507.23257)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3


class NablaTauOptions(_Options):
    """Options of ``nabla_tau``; the defaults are those of the official CIFAR code (2403.14339)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 256
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Passes over the forget set; null for int(3·|retain|/|forget|) loaders."
    )
    alpha_start: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="α₀; null for (5/3)·|D_f|/|D|, at most 1."
    )
    refresh_epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    network_mode: Literal["eval", "train"] = "eval"


class MethodOptions(_Options):
    """Options by method; what is left out keeps its default."""

    iau: IauOptions = IauOptions()
    nabla_tau: NablaTauOptions = NablaTauOptions()


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

    @field_validator("max_wait", "deadline_headroom")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta(0) or value > timedelta(days=365):
            raise ValueError("must lie between nothing and 365 days")
        return value


class Bounds(_Options):
    """What a new version must show to be published."""

    leak_margin: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.1, description="Attack AUC may differ from one half by at most this, interval included."
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    utility_budget: Annotated[float, Field(ge=0)] = Field(
        0.03, description="Loss allowed in the recipe's metric, on retained and on holdout data."
    )


class Policy(_Options):
    """How one model forgets."""

    batching: Batching = Batching()
    ladder: Annotated[tuple[MethodName, ...], Field(min_length=1, max_length=8)] = (
        "iau",
        "nabla_tau",
        "retrain",
    )
    options: MethodOptions = MethodOptions()
    bounds: Bounds = Bounds()

    @field_validator("ladder")
    @classmethod
    def _each_rung_once(cls, value: tuple[MethodName, ...]) -> tuple[MethodName, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names each method at most once")
        return value
