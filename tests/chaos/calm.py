"""After the storm: everything comes to rest, and a job without any disturbance runs just once."""

import time

from tests.chaos.checker.snapshot import Violation
from tests.chaos.client import REQUESTS
from tests.chaos.driver import LONG_WAIT_SECONDS, Driver, wait_until
from tests.chaos.fleet import POLL_SECONDS
from tests.chaos.history import History
from tests.chaos.load import retry
from tests.chaos.world import CALM_RECORDS, LONG

# What is left to do after 500 kills takes minutes on a small machine; a faulty product never ends.
REST_SECONDS = 900.0
FAULTY_REST_SECONDS = 45.0


def bring_to_rest(driver: Driver, history: History, faulty: bool) -> list[Violation]:
    """Retry what needs attention until nothing is left to do, or say that it did not end."""
    deadline = time.monotonic() + (FAULTY_REST_SECONDS if faulty else REST_SECONDS)
    while time.monotonic() < deadline:
        page = driver.client.get(REQUESTS, status="needs_attention", limit=200)
        for request in page["items"]:
            retry(driver.client, request, by_job=False)
        if not page["items"] and driver.database.is_quiet():
            # Also what nobody watched to its end.
            for request_id in list(history.accepted.values())[-200:]:
                driver.client.look_at(request_id)
            return []
        time.sleep(POLL_SECONDS * 4)  # the interval of a poll; the conditions are above
    return [Violation("lost", "the service did not come to rest")]


def long_jobs_begun_again(driver: Driver) -> list[Violation]:
    """Run a job that is longer than two leases; without disturbance one claim is enough.

    A machine that stalls for a whole lease makes a job begin again; it does not do so each time.
    """
    is_quiet = driver.database.is_quiet
    begun: list[list[int]] = []
    for number in range(CALM_RECORDS):
        request_id = driver.submit(LONG, driver.world.calm_id(number))
        if request_id is None:
            continue

        def is_settled(request_id: str = request_id) -> bool:
            return max(driver.database.attempts(request_id), default=0) > 1 or is_quiet()

        wait_until(is_settled, LONG_WAIT_SECONDS)
        attempts = driver.database.attempts(request_id)
        if attempts == [1]:
            return []
        begun.append(attempts)
    return [Violation("heartbeat", f"a job in calm was claimed again and again: {begun}")]
