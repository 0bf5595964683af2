"""What is done to the fleet and when, as data that follow from the seed alone."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from app.crash_points import CrashPoint
from tests.chaos.fleet import API_NAME, LEASE_SECONDS, PROGRAMS, SCHEDULER_NAME, SERVERS, WORKERS


class Kind(StrEnum):
    """What can happen."""

    KILL = "kill"
    KILL_CHILD = "kill_child"
    KILL_MAIN = "kill_main"
    TERMINATE = "terminate"
    PAUSE = "pause"
    STEAL = "steal"
    FLUSH = "flush"
    ARM = "arm"
    STUMBLE = "stumble"
    REGISTER = "register"


# SIGKILL, at once or at a crash point: what a run's number of kills counts.
KILLS = frozenset({Kind.KILL, Kind.KILL_CHILD, Kind.KILL_MAIN, Kind.ARM})
# A worker takes seconds of a processor to be back and a server none, so that how often each is
# struck is what leaves the others time to work.
WEIGHTS = {
    (Kind.ARM, ""): 40,
    (Kind.KILL_CHILD, WORKERS[0]): 10,
    (Kind.KILL_CHILD, WORKERS[1]): 10,
    (Kind.KILL, WORKERS[0]): 3,
    (Kind.KILL, WORKERS[1]): 3,
    (Kind.KILL_MAIN, WORKERS[0]): 1,
    (Kind.KILL_MAIN, WORKERS[1]): 1,
    (Kind.KILL, API_NAME): 3,
    (Kind.KILL, SCHEDULER_NAME): 5,
    (Kind.KILL, SERVERS[0]): 6,
    (Kind.KILL, SERVERS[1]): 6,
    (Kind.TERMINATE, WORKERS[0]): 2,
    (Kind.TERMINATE, WORKERS[1]): 2,
    (Kind.TERMINATE, API_NAME): 1,
    (Kind.TERMINATE, SCHEDULER_NAME): 1,
    (Kind.PAUSE, WORKERS[0]): 3,
    (Kind.PAUSE, WORKERS[1]): 3,
    (Kind.PAUSE, API_NAME): 1,
    (Kind.PAUSE, SCHEDULER_NAME): 2,
    (Kind.STEAL, ""): 3,
    (Kind.FLUSH, ""): 4,
    (Kind.STUMBLE, ""): 2,
    (Kind.REGISTER, ""): 1,
}
LONGEST_GAP_SECONDS = 0.5
# Beyond a lease with its sweep, so that another worker takes over.
PAUSE_SECONDS = (0.2, 1.5 * LEASE_SECONDS)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, after a gap."""

    kind: Kind
    target: str
    gap_seconds: float
    hold_seconds: float = 0.0
    """How long a pause lasts."""


def every_point(seed: int) -> list[Action]:
    """Return each crash point once, in an order of the seed."""
    points = sorted(CrashPoint)
    random.Random(f"points {seed}").shuffle(points)  # noqa: S311  # a schedule
    return [Action(Kind.ARM, point, 0.0) for point in points]


def actions(seed: int) -> Iterator[Action]:
    """Yield what happens at random, without end."""
    draw = random.Random(f"actions {seed}")  # noqa: S311  # a schedule
    chosen, points = list(WEIGHTS), sorted(CrashPoint)
    while True:
        [(kind, target)] = draw.choices(chosen, weights=list(WEIGHTS.values()))
        gap, hold = draw.uniform(0, LONGEST_GAP_SECONDS), 0.0
        if kind == Kind.ARM:
            [target] = draw.choices(points, weights=[_weight(point) for point in points])
        if kind == Kind.PAUSE:
            hold = draw.uniform(*PAUSE_SECONDS)
        yield Action(kind, target, gap, hold)


def _weight(point: CrashPoint) -> int:
    # These kill the only API, without which there is no load for all others to fall into.
    return 1 if point.startswith(("submit.", "cancel.", "retry.")) else 3


def targets() -> frozenset[str]:
    """Return everything that a schedule may strike by name."""
    return frozenset({*PROGRAMS, *SERVERS, *CrashPoint, ""})
