"""What is compared: each form of the service's methods, and what papers compare them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from benchmarks import baselines
from lethe.policy import IauOptions, MethodName, MethodOptions, NablaTauOptions, Policy
from lethe.recipe import MapDataset
from workers.unlearning.contract import Context, Unlearned

Unlearn = Callable[[nn.Module, MapDataset, MapDataset, MapDataset, Context], Unlearned]

ORIGINAL = "original"
RETRAIN = "retrain"
OTHER_SEED = "retrain_other_seed"
LADDER = "ladder"

BASELINES: Mapping[str, Unlearn] = {
    "fine_tune": baselines.fine_tune,
    "gradient_ascent": baselines.gradient_ascent,
}
PRODUCT: Mapping[str, tuple[MethodName, MethodOptions]] = {
    "iau_adam": ("iau", MethodOptions(iau=IauOptions(rule="adam"))),
    "iau_sgd": ("iau", MethodOptions(iau=IauOptions(rule="sgd"))),
    "iau_calibrated": ("iau", MethodOptions(iau=IauOptions(rule="calibrated"))),
    "nabla_tau_validation_eval": (
        "nabla_tau",
        MethodOptions(nabla_tau=NablaTauOptions(targets="validation")),
    ),
    "nabla_tau_validation_train": (
        "nabla_tau",
        MethodOptions(nabla_tau=NablaTauOptions(targets="validation", network_mode="train")),
    ),
    "nabla_tau_per_sample": (
        "nabla_tau",
        MethodOptions(nabla_tau=NablaTauOptions(targets="per_sample")),
    ),
}
METHODS = (ORIGINAL, RETRAIN, OTHER_SEED, *BASELINES, *PRODUCT, LADDER)


def other_seeds(count: int) -> tuple[str, ...]:
    """Return the names of that many retrains that differ from the retrain in the seed alone."""
    return (OTHER_SEED, *(f"{OTHER_SEED}_{number}" for number in range(2, count + 1)))


def number_of_other_seed(method: str) -> int | None:
    """Return which of these retrains it is, from one; None for any other method."""
    name, _, number = method.partition(f"{OTHER_SEED}_")
    if method == OTHER_SEED:
        return 1
    return None if name else int(number)


def arm_of(name: MethodName, policy: Policy, has_references: bool) -> str:
    """Return the arm that does what the policy does with the method of this name.

    Raises:
        LookupError: the policy's options are not those of any arm.

    """
    if name == "retrain":
        return RETRAIN
    wanted = policy.options.model_dump()[name]
    if wanted.get("targets") == "auto":
        wanted["targets"] = "per_sample" if has_references else "validation"
    for arm, (method, options) in PRODUCT.items():
        if method == name and options.model_dump()[name] == wanted:
            return arm
    raise LookupError(f"no arm has the policy's options of {name}")
