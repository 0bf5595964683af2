"""How long something took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Took:
    """Two clocks read over the same work."""

    seconds: float
    """By the clock on the wall."""
    cpu_seconds: float
    """Of this process on the processor; programs that share the machine hardly change it."""

    def __add__(self, other: Took) -> Took:
        """Return the time of both."""
        return Took(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


NOTHING = Took(0.0, 0.0)


def warm_up() -> None:
    """Take one step with each optimiser that is timed, since PyTorch loads much at the first."""
    for optimiser in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        model = nn.Linear(1, 1)
        step = optimiser(model.parameters(), lr=0.1)
        torch.autograd.backward(model(torch.ones(1, 1)).sum())
        step.step()


def timed(work: Callable[[], T]) -> tuple[T, Took]:
    """Do the work and return what it gave and how long it took."""
    seconds, cpu_seconds = time.perf_counter(), time.process_time()
    result = work()
    return result, Took(time.perf_counter() - seconds, time.process_time() - cpu_seconds)
