"""Holds a checkpoint against the model that its recipe builds."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from workers.recipes import Findings

LISTED = 10  # names or positions in one message; the count says how many there are


def check_weights(
    found: Findings, model: nn.Module | None, state: Mapping[str, Tensor], ids: set[str | None]
) -> None:
    """Add what keeps the weights from being the model's; without a model, only what they lack."""
    before = len(found.problems)
    faults = {"weights.finite": ("are not finite", [n for n in state if not _finite(state[n])])}
    wanted = found.run("model.state", "state_dict()", lambda: layout(model)) if model else None
    if isinstance(wanted, dict):
        both = [name for name in wanted if name in state]
        given = {name: (tuple(state[name].shape), state[name].dtype) for name in both}
        faults |= {
            "weights.missing": ("are missing", [n for n in wanted if n not in state]),
            "weights.unexpected": ("are unexpected", [n for n in state if n not in wanted]),
        }
        for part, what in enumerate(("shape", "dtype")):
            faults["weights." + what] = (
                f"have another {what} than the model's",
                [
                    f"{name} ({given[name][part]} for {wanted[name][part]})"
                    for name in both
                    if given[name][part] != wanted[name][part]
                ],
            )
    for code, (what, names) in faults.items():
        # A module may keep one parameter for each person, under the person's sample ID.
        shown = ["(withheld)" if _names_sample(name, ids) else name for name in names]
        if names:
            found.add(code, f"{len(names)} tensors of the checkpoint {what}: {listed(shown)}")
    if model is not None and len(found.problems) == before:
        found.run("weights.load", "load_state_dict()", lambda: model.load_state_dict(dict(state)))


def _names_sample(name: str, ids: set[str | None]) -> bool:
    plain = name.partition(" (")[0]
    return not ids.isdisjoint([plain, *plain.split(".")])


def _finite(tensor: Tensor) -> bool:
    # PyTorch has no isfinite for the dtypes of one byte.
    return bool(torch.isfinite(tensor.float() if tensor.itemsize == 1 else tensor).all())


def listed(names: Sequence[object]) -> str:
    """Return the first of the names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(str(name)[:200] for name in names[:LISTED]) + more


def layout(model: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return the shape and the dtype of each parameter and buffer."""
    return {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
