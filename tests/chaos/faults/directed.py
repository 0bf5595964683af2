"""For each planted fault, what opens the window in which it does harm."""

from collections.abc import Callable, Mapping

from app.crash_points import CrashPoint
from tests.chaos.driver import LONG_WAIT_SECONDS, SOON_SECONDS, Driver, wait_until
from tests.chaos.faults.planted import BETWEEN
from tests.chaos.world import LONG

PLANNERS = 3
# Requests after which the run is under way.
SOME = 20


def wake_a_robbed_worker(driver: Driver) -> None:
    """Stop a worker until another has its job, and let it go on while that one is at work."""
    wait_for_load(driver)
    driver.steal_long()
    wait_until(lambda: driver.database.running(LONG) is None, LONG_WAIT_SECONDS)


def die_between_the_halves(driver: Driver) -> None:
    """Kill a worker between the two transactions of its publication."""
    wait_for_load(driver)
    driver.arm([BETWEEN])
    driver.wait_for_all(LONG_WAIT_SECONDS)


def roll_plans_back(driver: Driver) -> None:
    """Kill the scheduler before it commits a job, again and again."""
    wait_for_load(driver)
    for _ in range(PLANNERS):
        driver.arm([CrashPoint.PLAN_BEFORE_COMMIT])
        driver.wait_for_all(SOON_SECONDS)


def wait_for_load(driver: Driver) -> None:
    """Disturb nothing: the job in calm that comes at the end is enough."""
    wait_until(lambda: len(driver.history.accepted) >= SOME, LONG_WAIT_SECONDS)


OPENINGS: Mapping[str, Callable[[Driver], None]] = {
    "no_fence": wake_a_robbed_worker,
    "split_publish": die_between_the_halves,
    "nudge_before_commit": roll_plans_back,
    "no_heartbeat": wait_for_load,
}
