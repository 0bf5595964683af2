"""The methods by name."""

from collections.abc import Callable, Mapping

from lethe.policy import MethodName, MethodOptions
from workers.unlearning.contract import Context, Method, Unlearned
from workers.unlearning.iau import Iau
from workers.unlearning.nabla_tau import NablaTau
from workers.unlearning.retrain import Retrain

__all__ = ["Context", "Method", "Unlearned", "method_for"]

_METHODS: Mapping[MethodName, Callable[[MethodOptions], Method]] = {
    "iau": lambda options: Iau(options.iau),
    "nabla_tau": lambda options: NablaTau(options.nabla_tau),
    "retrain": lambda _: Retrain(),
}


def method_for(name: MethodName, options: MethodOptions) -> Method:
    """Return the method of this name with its options from the policy."""
    return _METHODS[name](options)
