"""Many clients at once: they submit, withdraw, retry and watch while the service is killed."""

import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import TracebackType
from typing import Any, Self

from lethe.verify import verify_consistency
from lethe.verify.keys import load_keys
from lethe.verify.reasons import NotProven
from lethe.verify.receipt import verify_receipt
from tests.chaos.client import REQUESTS, Client
from tests.chaos.fleet import Fleet
from tests.chaos.history import Asked, History
from tests.chaos.world import COMMON, LONG, World

SUBMITTERS = 2
# Requests that nobody has seen the end of: beyond, the submitters wait for the workers.
MOST_OPEN = 48
OPEN = frozenset({"pending", "in_progress"})
SUBMIT_GAP_SECONDS = 0.6
CANCEL_GAP_SECONDS = 1.0
MOST_WITHDRAWN = 0.25
RETRY_GAP_SECONDS = 2.0
WATCH_GAP_SECONDS = 0.4
SIZES = (1, 1, 1, 2, 2, 3, 5)


class Load:
    """Clients in threads of their own; what they do follows from the seed, when does not."""

    def __init__(self, fleet: Fleet, history: History, world: World, seed: int) -> None:
        """Start nothing yet."""
        self._fleet = fleet
        self._history = history
        self._world = world
        self._seed = seed
        self._stop = threading.Event()
        self._open: dict[str, None] = {}
        self._recent: deque[str] = deque(maxlen=40)
        self._ended: deque[str] = deque(maxlen=400)
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(f"{work.__name__} {n}", work), daemon=True)
            for work, number in (
                (self._submit, SUBMITTERS),
                (self._withdraw, 1),
                (self._retry, 1),
                (self._watch, 1),
            )
            for n in range(number)
        ]

    def __enter__(self) -> Self:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let every client end what it does."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None and self._failures:
            raise self._failures[0]

    def _run(self, name: str, work: Callable[[Client, random.Random], None]) -> None:
        client = Client(self._fleet, self._history)
        try:
            work(client, random.Random(f"{self._seed} {name}"))  # noqa: S311  # a schedule
        except BaseException as error:  # noqa: BLE001  # raised again where the load is ended
            self._failures.append(error)
        finally:
            client.close()

    def _submit(self, client: Client, draw: random.Random) -> None:
        name = threading.current_thread().name
        for number in count():
            if self._stop.wait(draw.uniform(0, SUBMIT_GAP_SECONDS)):
                return
            if len(self._open) >= MOST_OPEN:
                continue
            # A key may hold personal data as well as anything, and is not to be found either.
            key = f"{self._world.mark}-key-{name}-{number}"
            asked = Asked(
                key, *self._wanted(draw), reference=draw.choice([None, self._world.canary])
            )
            if draw.random() < 0.1:
                self._submit_twice(asked)
                continue
            self._accepted(client.submit(asked, self._stop))

    def _submit_twice(self, asked: Asked) -> None:
        # At the same time, as by a client that lost its patience.
        clients = [Client(self._fleet, self._history) for _ in range(2)]
        with ThreadPoolExecutor(2) as both:
            for request_id in both.map(lambda one: one.submit(asked, self._stop), clients):
                self._accepted(request_id)
        for client in clients:
            client.close()

    def _accepted(self, request_id: str | None) -> None:
        if request_id is not None and request_id not in self._recent:
            self._open[request_id] = None
            self._recent.append(request_id)

    def _wanted(self, draw: random.Random) -> tuple[tuple[str, ...], str | None]:
        world, roll = self._world, draw.random()
        if roll < 0.05:
            return (world.unknown_id(draw),), None
        if roll < 0.07:
            return (world.long_id(draw),), LONG
        ids = {world.common_id(draw) for _ in range(draw.choice(SIZES))}
        if draw.random() < 0.1:
            ids.add(world.unknown_id(draw))
        return tuple(sorted(ids)), draw.choice(COMMON) if draw.random() < 0.15 else None

    def _withdraw(self, client: Client, draw: random.Random) -> None:
        while not self._stop.wait(draw.uniform(0, CANCEL_GAP_SECONDS)):
            known = list(self._recent)
            asked = len(self._history.withdrawals)
            if known and asked < MOST_WITHDRAWN * len(self._history.accepted):
                # The newest can still be withdrawn as a whole, older ones in part or not at all.
                client.withdraw(draw.choice(known[-4:] if draw.random() < 0.7 else known))

    def _retry(self, client: Client, draw: random.Random) -> None:
        while not self._stop.wait(draw.uniform(0, RETRY_GAP_SECONDS)):
            page = client.once("GET", REQUESTS, params={"status": "needs_attention"})
            if page is None or not page.is_success or not page.json()["items"]:
                continue
            retry(client, draw.choice(page.json()["items"]), by_job=draw.random() < 0.5)

    def _watch(self, client: Client, draw: random.Random) -> None:
        newest: dict[str, Any] | None = None
        while not self._stop.wait(WATCH_GAP_SECONDS):
            for request_id in draw.sample(list(self._open), min(3, len(self._open))):
                status = client.look_at(request_id)
                if status is not None and status not in OPEN:
                    self._open.pop(request_id, None)
                    self._ended.append(request_id)
            if self._ended and draw.random() < 0.3:
                client.look_at(draw.choice(list(self._ended)))
            if self._ended and draw.random() < 0.1:
                check_receipt(client, self._history, draw.choice(list(self._ended)))
            newest = see_head(client, self._history, newest)
            page = client.once("GET", "/v1/jobs", params={"limit": 10})
            if page is not None and page.is_success:
                for job in page.json()["items"]:
                    self._history.see_job_status(job["id"], job["status"])


def retry(client: Client, request: dict[str, Any], *, by_job: bool) -> None:
    """Ask to try again what a request needs attention for, or what the job left that failed."""
    jobs = [e["job"] for e in request["erasures"] if e["status"] == "needs_attention" and e["job"]]
    if by_job and jobs:
        client.once("POST", f"/v1/jobs/{jobs[0]}/retry")
    else:
        client.once("POST", f"{REQUESTS}/{request['id']}/retry")


def see_head(
    client: Client, history: History, earlier: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Note the newest tree head, and hold it against an earlier one by the service's own proof."""
    answer = client.once("GET", "/v1/audit/head")
    if answer is None or not answer.is_success:
        return earlier
    head: dict[str, Any] = answer.json()
    history.see_head(head["size"], head["root_hash"])
    if earlier is None:
        return head
    if head["size"] < earlier["size"]:
        history.contradictions.append(("log", f"it shrank to {head['size']} entries"))
        return head
    first, second = earlier["size"], head["size"]
    answer = client.once(
        "GET", "/v1/audit/proofs/consistency", params={"first": first, "second": second}
    )
    if answer is not None:
        path = [bytes.fromhex(node) for node in answer.json()["path"]] if answer.is_success else []
        before, after = (bytes.fromhex(one["root_hash"]) for one in (earlier, head))
        if not answer.is_success or not verify_consistency(first, second, path, before, after):
            history.contradictions.append(("log", f"no proof from {first} to {second} entries"))
    return head


def check_receipt(client: Client, history: History, request_id: str) -> None:
    """Check a finished request's receipt as an auditor does."""
    answer = client.once("GET", f"{REQUESTS}/{request_id}/receipt")
    if answer is None or not answer.is_success:
        return
    # Afterwards: a key is published when it first signs.
    keys = client.once("GET", "/v1/keys")
    if keys is None or not keys.is_success:
        return
    try:
        verified = verify_receipt(answer.content, load_keys(keys.content))
    except NotProven as error:
        history.contradictions.append(("log", f"the receipt of {request_id}: {error.reason}"))
    else:
        history.see_head(verified.head.size, verified.head.root_hash.hex())
