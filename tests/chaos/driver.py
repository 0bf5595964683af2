"""Does to the fleet what the schedule says, and counts it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

from app.crash_points import CrashPoint
from tests.chaos.client import Client
from tests.chaos.database import Database
from tests.chaos.fleet import LEASE_SECONDS, POLL_SECONDS, Fleet
from tests.chaos.history import Asked, History
from tests.chaos.recipe import HEALED, POISON_EVERY, STUMBLE, sample_id
from tests.chaos.schedule import Action, Kind
from tests.chaos.world import EXACT, LATE_RECIPE, LONG, World, checkpoint, register

MOST_LATE_MODELS = 5
# Repetitions at the end: each has to name the request that the first answer named.
ASKED_AGAIN = 50
# Waits for a machine that is busy with everything else; each ends as soon as its condition holds.
SOON_SECONDS = 20.0
LONG_WAIT_SECONDS = 240.0
# The longest that a strike waits for one more request that it could do harm to.
LOAD_SECONDS = 2.5
PROVOKE_EVERY_SECONDS = 8.0


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Tell whether the condition came about in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)  # the interval of a poll; the condition is above
    return True


class Driver:
    """One thread that strikes the fleet; the clients go on meanwhile in theirs."""

    def __init__(self, fleet: Fleet, history: History, world: World, seed: int) -> None:
        """Take what there is to strike."""
        self.counts: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.database = Database(fleet)
        self.client = Client(fleet, history)
        self._fleet = fleet
        self.history = history
        self.world = world
        self._draw = random.Random(f"driver {seed}")  # noqa: S311  # a schedule
        self._numbers = count()
        self._armed: set[str] = set()
        self._accepted_before = 0

    @property
    def kills(self) -> int:
        """SIGKILLs so far, those at crash points included."""
        self._look_for_fired()
        return self.counts["kills"]

    def register(self, name: str, recipe: str) -> None:
        """Register a model."""
        register(self.client, checkpoint(name), name, recipe)

    def do(self, action: Action) -> None:
        """Do one thing; what it is for may not be there just now."""
        time.sleep(action.gap_seconds)  # the pace of the schedule, not a wait for anything
        # On a small machine most of a run would pass with the API on its way up.
        wait_until(self._has_new_load, LOAD_SECONDS)
        name = action.target
        match action.kind:
            case Kind.KILL:
                self._count_kill(self._fleet.kill(name), name)
            case Kind.KILL_CHILD:
                self._count_kill(self._fleet.kill_child(name), name)
            case Kind.KILL_MAIN:
                self._count_kill(self._fleet.kill_main(name), name)
            case Kind.TERMINATE:
                self.counts["terminations"] += self._fleet.terminate(name)
            case Kind.PAUSE:
                with self._fleet.paused(name) as stopped:
                    self.counts["pauses"] += stopped
                    time.sleep(action.hold_seconds)  # the pause is what is being done
            case Kind.STEAL:
                self.steal(None)
            case Kind.FLUSH:
                self._fleet.flush()
                self.counts["flushes"] += 1
            case Kind.STUMBLE:
                (self._fleet.folder / STUMBLE).touch()
                self.counts["errors"] += 1
            case Kind.REGISTER:
                self._register_late()
            case Kind.ARM:
                self.arm([name])
                self.provoke(name)

    def arm(self, points: Iterable[str]) -> None:
        """Have the next process die that reaches a point."""
        for point in points:
            (self._fleet.crash_folder / point).touch()
            self._armed.add(point)

    def disarm(self) -> None:
        """Let everybody live that reaches a point from here on."""
        self._look_for_fired()
        for point in self._armed:
            (self._fleet.crash_folder / point).unlink(missing_ok=True)
        self._armed.clear()

    def wait_for_all(self, seconds: float) -> frozenset[str]:
        """Provoke what is armed until somebody died of each; return the points nobody reached."""
        deadline = time.monotonic() + seconds
        while self._armed and time.monotonic() < deadline:
            for point in sorted(self._armed):
                # Last, since a worker that is told to stop dies of any other point before this one.
                if point != CrashPoint.RELEASE_BEFORE_COMMIT or len(self._armed) <= 2:
                    self.provoke(point)
            wait_until(self._none_armed, PROVOKE_EVERY_SECONDS)
        return frozenset(self._armed)

    def provoke(self, point: str) -> None:
        """Bring about what leads to a point, where the load does not do so all the time."""
        match point:
            case CrashPoint.GIVE_BACK_BEFORE_COMMIT:
                (self._fleet.folder / STUMBLE).touch()
                self.submit(EXACT, self.world.common_id(self._draw))
            case CrashPoint.CHECK_BEFORE_ACCEPT:
                self._register_late()
            case CrashPoint.RETRY_AFTER_COMMIT:
                poison = POISON_EVERY * self._draw.randint(1, self.world.common // POISON_EVERY)
                self.submit(EXACT, sample_id(self.world.mark, poison - 1))
            case CrashPoint.RELEASE_BEFORE_COMMIT:
                self._terminate_at_work()

    def submit(self, model: str, *sample_ids: str) -> str | None:
        """Ask one model to forget, if the API takes it soon."""
        key = f"{self.world.mark}-driver-{next(self._numbers)}"
        return self.client.submit(Asked(key, sample_ids, model))

    def submit_long(self) -> str | None:
        """Ask for the job that takes longer than two leases."""
        return self.submit(LONG, self.world.long_id(self._draw))

    def steal(self, model: str | None) -> bool:
        """Stop a worker in mid-job until another has its job; tell whether that came about."""
        claimed = self.database.running(model)
        worker = None if claimed is None else self._fleet.worker_of(claimed[2])
        if claimed is None or worker is None:
            return False
        job_id, fence, _ = claimed
        with self._fleet.paused(worker) as stopped:
            self.counts["pauses"] += stopped
            stolen = wait_until(
                lambda: self.database.is_claimed_anew(job_id, fence), 4 * LEASE_SECONDS
            )
        self.counts["stolen"] += stolen
        return stolen

    def steal_long(self) -> bool:
        """Have a lease stolen from a live worker while the thief is still at work."""
        for _ in range(3):
            self.submit_long()
            # Not before its training has begun: that ends by the clock, pause or not, and so before
            # the thief's.
            begun = wait_until(lambda: self.database.is_training(LONG), SOON_SECONDS)
            if begun and self.steal(LONG):
                return True
        return False

    def ask_again(self) -> None:
        """Send every request again that was never answered, and some that were."""
        asked, accepted = self.history.asked, self.history.accepted
        answered = sorted(accepted)
        for key in [
            *(key for key in asked if key not in accepted),
            *self._draw.sample(answered, min(ASKED_AGAIN, len(answered))),
        ]:
            self.client.submit(asked[key])

    def heal(self) -> None:
        """End every disturbance, and mend what made recipes fail."""
        self.disarm()
        (self._fleet.folder / STUMBLE).unlink(missing_ok=True)
        (self._fleet.folder / HEALED).touch()
        self._fleet.wait_for_api()

    def close(self) -> None:
        """Close its connections."""
        self.client.close()
        self.database.close()

    def _count_kill(self, killed: bool, name: str) -> None:
        self.counts["kills"] += killed
        self.fired[name] += killed

    def _has_new_load(self) -> bool:
        accepted = len(self.history.accepted)
        if accepted == self._accepted_before:
            return False
        self._accepted_before = accepted
        return True

    def _none_armed(self) -> bool:
        self._look_for_fired()
        return not self._armed

    def _look_for_fired(self) -> None:
        for point in sorted(self._armed):
            if not (self._fleet.crash_folder / point).exists():
                self._armed.discard(point)
                self._count_kill(True, point)

    def _register_late(self) -> None:
        number = self.counts["registered"]
        if number < MOST_LATE_MODELS:
            self.register(f"{LATE_RECIPE}-{number}", LATE_RECIPE)
            self.counts["registered"] += 1

    def _terminate_at_work(self) -> None:
        self.submit_long()
        if not wait_until(lambda: self.database.running(LONG) is not None, PROVOKE_EVERY_SECONDS):
            return
        claimed = self.database.running(LONG)
        worker = claimed and self._fleet.worker_of(claimed[2])
        if worker:  # else its process was killed, and the next one gets the job
            self.counts["terminations"] += self._fleet.terminate(worker)
