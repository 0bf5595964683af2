"""What the service promises, in plain Python and without a database."""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from uuid import UUID

MOST_INTERRUPTIONS = 3


@dataclass(slots=True, eq=False)
class Model:
    id: UUID
    samples: frozenset[str]
    held_above: int = 1_000_000
    """Requests that concern it and name more samples wait for an approval."""
    status: str = "checking"
    versions: int = 0
    forgotten: dict[str, int] = field(default_factory=dict)
    """The number of the version that was the first without a sample."""
    owed: set[str] = field(default_factory=set)
    """Forgotten approximately since the last exact version."""

    def still_holds(self, asked: Set[str]) -> frozenset[str]:
        return (self.samples & asked) - self.forgotten.keys()


@dataclass(slots=True, eq=False)
class Promise:
    """A deletion request."""

    id: UUID
    asked: frozenset[str]
    only: Model | None
    awaited: frozenset[Model]
    """Models that were being checked when the request came."""
    erasures: dict[Model, str] = field(default_factory=dict)
    ended: str | None = None
    """Cancelled or rejected, as far as it was not too late."""
    held: bool = False
    approved: bool = False
    paused: bool = False
    decided: Counter[str] = field(default_factory=Counter)
    """How often what was decided about it."""

    @property
    def is_held(self) -> bool:
        return self.held and not self.approved and not self.ended

    def concerns(self, model: Model) -> bool:
        return self.only in (None, model) and bool(model.samples & self.asked)

    def hold_for(self, model: Model) -> None:
        if len(self.asked) > model.held_above and not self.ended:
            self.held = True

    def match(self, model: Model) -> None:
        """Add what a ready model has to do for the request."""
        if model in self.erasures or not self.concerns(model) or self.ended or self.is_held:
            return
        holds = model.still_holds(self.asked)
        self.erasures[model] = self.waiting if holds else "completed"

    @property
    def waiting(self) -> str:
        """Where what is to be forgotten stands before it is planned."""
        return "paused" if self.paused else "pending"

    @property
    def waits(self) -> bool:
        return any(model.status == "checking" for model in self.awaited)

    @property
    def status(self) -> str:
        found = set(self.erasures.values())
        if self.is_held:
            return "held"
        if not found and self.ended:
            return self.ended
        if not found:
            return "pending" if self.waits else "nothing_found"
        if "needs_attention" in found:
            return "needs_attention"
        if found in ({"cancelled"}, {"rejected"}):
            return found.pop()
        if found <= {"completed", "cancelled", "rejected"}:
            return "completed"
        return "in_progress" if found & {"scheduled", "completed"} else "pending"


@dataclass(slots=True, eq=False)
class Batch:
    """An unlearning job."""

    id: UUID
    model: Model
    promises: list[Promise]
    rebase: bool
    origin: UUID
    """The job that failed first, if this is a part of its batch; or else itself."""
    status: str = "queued"
    fence: int = 0
    failures: int = 0
    interruptions: int = 0

    @property
    def to_forget(self) -> frozenset[str]:
        """What no job has forgotten yet."""
        return frozenset().union(*(self.model.still_holds(p.asked) for p in self.promises))

    def move_all(self, status: str) -> None:
        for promise in self.promises:
            promise.erasures[self.model] = status


@dataclass(slots=True)
class World:
    """Everything that was promised, and how far it is."""

    most_splits: int
    models: list[Model] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    parts: dict[UUID, int] = field(default_factory=dict)
    """Parts that the batch of each job was split into, all in all."""
    left: Counter[str] = field(default_factory=Counter)
    """How often an erasure was cancelled, or rejected."""

    def unfinished(self) -> list[Batch]:
        return [batch for batch in self.batches if batch.status in ("queued", "running")]

    def batch(self, id_: UUID) -> Batch:
        return next(batch for batch in self.batches if batch.id == id_)

    def submit(self, id_: UUID, asked: frozenset[str], only: Model | None) -> None:
        checking = {model for model in self.models if model.status == "checking"}
        awaited = frozenset(model for model in checking if only in (None, model))
        promise = Promise(id_, asked, only, awaited)
        for model in [only] if only is not None else filter(promise.concerns, self.ready()):
            promise.hold_for(model)
        self.match(promise)
        self.promises.append(promise)

    def ready(self) -> list[Model]:
        return [model for model in self.models if model.status == "ready"]

    def match(self, promise: Promise) -> None:
        for model in self.ready():
            promise.match(model)

    def make_ready(self, model: Model) -> None:
        model.status, model.versions = "ready", 1
        for promise in self.promises:
            if model in promise.awaited:
                if promise.concerns(model) and not promise.approved:
                    promise.hold_for(model)
                promise.match(model)

    def queue(self, batch: Batch) -> None:
        batch.status = "queued"

    def publish(self, batch: Batch, *, exact: bool) -> None:
        model = batch.model
        model.versions += 1
        new = batch.to_forget
        model.forgotten |= dict.fromkeys(new, model.versions)
        model.owed = set() if exact else model.owed | new
        batch.status = "published"
        batch.move_all("completed")

    def leave(self, batch: Batch, status: str, *, split: bool) -> None:
        """End a batch without a version."""
        batch.status = status
        made = self.parts.get(batch.origin, 0)
        if split and len(batch.promises) > 1 and made + 2 <= self.most_splits:
            self.parts[batch.origin] = made + 2
            batch.move_all("pending")
        else:
            batch.move_all("needs_attention")

    def fail(self, batch: Batch) -> None:
        """End a batch for an error that would come again."""
        batch.failures += 1
        self.leave(batch, "failed", split=False)

    def count_failure(self, batch: Batch, attempts: int) -> None:
        batch.failures += 1
        if batch.failures < attempts:
            batch.status = "queued"
        else:
            self.leave(batch, "failed", split=True)

    def end(self, promise: Promise, to: str) -> tuple[set[UUID], set[UUID]] | None:
        """End what can be; return the models that it left, and those too late; None: all."""
        if promise.ended not in (None, to):
            return None
        leaving = {m for m in promise.erasures if self._may_leave(promise, m)}
        before = {m for m, status in promise.erasures.items() if status == to}
        late = promise.erasures.keys() - leaving - before
        nothing_left = late or promise.status == "nothing_found"
        goes_on = promise.waits or promise.is_held
        if nothing_left and not (leaving or promise.ended or goes_on):
            return None
        if leaving or not promise.ended:
            promise.decided[to] += 1
        promise.ended = to
        self._take_out(promise, leaving, to)
        self.left[to] += len(leaving)
        return _ids(leaving | before), _ids(late)

    def pause(self, promise: Promise) -> None:
        waiting = {
            m
            for m, status in promise.erasures.items()
            if status in ("pending", "scheduled") and self._may_leave(promise, m)
        }
        promise.paused = True
        self._take_out(promise, waiting, "paused")

    def resume(self, promise: Promise) -> None:
        promise.paused = False
        for model, status in promise.erasures.items():
            if status == "paused":
                promise.erasures[model] = "pending"

    def reopen(self, promise: Promise) -> None:
        promise.ended = None
        for model, status in promise.erasures.items():
            if status in ("cancelled", "rejected"):
                promise.erasures[model] = promise.waiting
        self.match(promise)

    def approve(self, promise: Promise) -> None:
        promise.approved = True
        self.match(promise)

    def _take_out(self, promise: Promise, models: Iterable[Model], to: str) -> None:
        for model in models:
            for batch in self.unfinished():
                if batch.model is model and promise in batch.promises:
                    self._shrink(batch, promise)
            promise.erasures[model] = to

    def _may_leave(self, promise: Promise, model: Model) -> bool:
        status = promise.erasures[model]
        if status in ("pending", "paused", "needs_attention"):
            return True
        return status == "scheduled" and all(
            batch.status == "queued" or batch.interruptions < MOST_INTERRUPTIONS
            for batch in self.unfinished()
            if batch.model is model
        )

    def _shrink(self, batch: Batch, promise: Promise) -> None:
        batch.promises.remove(promise)
        if not batch.promises and not batch.rebase:
            batch.status = "cancelled"
        elif batch.status == "running":
            batch.status = "queued"
            batch.interruptions += 1


def _ids(models: Iterable[Model]) -> set[UUID]:
    return {model.id for model in models}
