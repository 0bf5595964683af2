"""One run from top to bottom: start, disturb, heal, a calm job, stop, check."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.calm import bring_to_rest, long_jobs_begun_again
from tests.chaos.checker.inspection import inspect
from tests.chaos.checker.snapshot import Violation
from tests.chaos.driver import LONG_WAIT_SECONDS, Driver
from tests.chaos.faults.directed import OPENINGS
from tests.chaos.fleet import LEASE_SECONDS, Fleet
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.monitor import Monitor
from tests.chaos.recipe import FOLDER, LONG_SECONDS, MARK, RECORDS
from tests.chaos.schedule import actions, every_point
from tests.chaos.world import POLICIES, World

# What is done beside the kills.
DISTURBANCES = ("terminations", "pauses", "stolen", "flushes", "errors", "registered")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to do."""

    folder: Path
    kills: int
    seed: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    counts: dict[str, Any]
    fired: Counter[str]
    violations: list[Violation]
    unreached: frozenset[str]
    """Crash points that nothing came to."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, and every disturbance took place."""
        return not self.violations and not self.unreached


def run(options: Options, say: Say) -> Report:
    """Run the fleet through the seed's schedule and check what is left of it."""
    started = time.monotonic()

    def tell(what: str) -> None:
        say(f"{time.monotonic() - started:5.0f} s  {what}")

    world = World.drawn(options.kills)
    environment = {
        FOLDER: str(options.folder),
        MARK: world.mark,
        RECORDS: str(world.common),
        LONG_SECONDS: str(2.5 * LEASE_SECONDS),
    }
    history = History()
    with Fleet(options.folder, environment, options.fault) as fleet, Monitor(fleet):
        driver = Driver(fleet, history, world, options.seed)
        tell(f"up; logs in {fleet.logs}")
        unreached = disturb(driver, Load(fleet, history, world, options.seed), options, tell)
        driver.heal()
        tell("healed")
        restless = bring_to_rest(driver, history, options.fault is not None)
        begun_again = long_jobs_begun_again(driver)
        bring_to_rest(driver, history, options.fault is not None)
        tell("at rest")
        driver.ask_again()
        driver.close()
        fleet.stop_programs()
        found = inspect(fleet, world, history)
    violations = [*restless, *begun_again, *found.violations]
    return Report(
        {
            "kills": driver.kills,
            "submitted": len(history.asked),
            "accepted": len(history.accepted),
            **found.counts,
            **tally(violations),
            **{name: driver.counts[name] for name in DISTURBANCES},
            "seed": options.seed,
            "seconds": round(time.monotonic() - started),
        },
        driver.fired,
        violations,
        unreached,
    )


def disturb(driver: Driver, load: Load, options: Options, say: Say) -> frozenset[str]:
    """Strike the fleet under load; return the crash points that nobody reached."""
    for name in POLICIES:
        if name != "chaos-late":
            driver.register(name, name)
    with load:
        if options.fault is not None:
            OPENINGS[options.fault](driver)
            return frozenset()
        stolen = driver.steal_long()
        say(f"a lease was {'' if stolen else 'not '}stolen from a live worker")
        driver.arm(action.target for action in every_point(options.seed))
        unreached = driver.wait_for_all(LONG_WAIT_SECONDS)
        say(f"{driver.kills} kills, every crash point reached but {sorted(unreached)}")
        driver.disarm()
        for number, action in enumerate(actions(options.seed)):
            if driver.kills >= options.kills:
                break
            driver.do(action)
            if number % 50 == 0:
                say(f"{driver.kills} kills")
    return unreached if stolen else unreached | {"a lease stolen from a live worker"}


def tally(violations: list[Violation]) -> dict[str, Any]:
    """Return how many violations there are of each kind."""
    kinds = Counter(violation.kind for violation in violations)
    return {
        "lost": kinds["lost"],
        "doubled": kinds["doubled"],
        "forks": kinds["forks"],
        "plaintext": kinds["plaintext"],
        "log_consistent": not kinds["log"],
        "artifacts": kinds["artifacts"],
        "retained": kinds["retained"],
        "unverified": kinds["unverified"],
        "phantoms": kinds["phantoms"],
        "heartbeat": kinds["heartbeat"],
        "unchecked": kinds["unchecked"],
    }
