"""What a published rung was given, in the form in which an audit repeats it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from app.jobs.outcome import Attempted
from app.jobs.records import Record
from workers.artifacts import Corrupted
from workers.ground import Ground
from workers.recipes import recipe_fingerprint
from workers.software import software
from workers.unlearning.references import Expected, Judges

LOSSES_FORMAT = "lethe-job-losses-v1"
TARGETS = "targets"
SIDES = ("forgotten", "unseen")

# On the CPU the same inputs give the same bits. A GPU adds up in an order of its own each time, so
# that float32 sums differ in their last bits, and training makes more of it. Without doing
# anything, a method would be at a distance of 1.
TOLERANCE_ON_CPU = 0.0
TOLERANCE_ELSEWHERE = 0.01


def record_of(ground: Ground, rung: Attempted) -> Record:
    """Return what a rung and its verification were given.

    Raises:
        OSError: a file of the recipe's package or of the installation cannot be read.

    """
    used = ground.job.gradient_ledger if ground.ledger is not None else None
    on_cpu = ground.device.type == "cpu"
    inputs = {
        "attempt": ground.job.attempt,
        "position": rung.position,
        "method": rung.method,
        "recipe_fingerprint": recipe_fingerprint(ground.recipe),
        "references": ground.job.reference_set_id and str(ground.job.reference_set_id),
        "ledger": asdict(used) if used is not None and rung.method == "iau" else None,
        "tolerance": TOLERANCE_ON_CPU if on_cpu else TOLERANCE_ELSEWHERE,
        "environment": environment(ground.device),
    }
    return Record(inputs, dump_losses(ground.targets, ground.judges))


def environment(device: torch.device) -> dict[str, Any]:
    """Return what beside the inputs may decide about the last bits of an outcome, as JSON."""
    return {
        **software(),
        "device": device.type,
        "device_name": _name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def dump_losses(targets: Tensor | None, judges: Judges | None) -> bytes | None:
    """Return numbers about single samples as safetensors, float64, bit by bit; None for none."""
    tensors = {} if targets is None else {TARGETS: targets}
    if judges is not None:
        for side in SIDES:
            expected: Expected = getattr(judges, side)
            tensors |= {f"{side}.mean": expected.mean, f"{side}.spread": expected.spread}
    if not tensors:
        return None
    dense = {name: tensor.detach().cpu().clone() for name, tensor in sorted(tensors.items())}
    return safetensors.torch.save(dense, {"format": LOSSES_FORMAT})


def load_losses(content: bytes | None) -> tuple[Tensor | None, Judges | None]:
    """Return the targets, (m,), and the judges that ``dump_losses`` was given.

    Raises:
        Corrupted: the bytes are none of its.

    """
    if content is None:
        return None, None
    try:
        tensors = safetensors.torch.load(content)
        targets = tensors.pop(TARGETS, None)
        judges = None
        if tensors:
            sides = [
                Expected(tensors.pop(f"{side}.mean"), tensors.pop(f"{side}.spread"))
                for side in SIDES
            ]
            judges = Judges(*sides)
    except (SafetensorError, KeyError):
        raise Corrupted("the recorded losses are not as they were written") from None
    if tensors or _format_of(content) != LOSSES_FORMAT:
        raise Corrupted("the recorded losses are of another format")
    return targets, judges


def _format_of(content: bytes) -> str | None:
    # The parser, which has accepted the header, keeps its metadata to itself.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    format_: str | None = header.get("__metadata__", {}).get("format")
    return format_


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()
