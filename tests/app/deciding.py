"""What clients and others decide about promises, and what must come of it."""

from collections.abc import Callable, Mapping
from uuid import UUID

from sqlalchemy.orm import Session

from app.db import transaction
from app.deletions import cancelling, reviewing, timekeeping
from app.deletions.cancelling import Cancellation
from app.deletions.clocks import PauseGround
from app.errors import Conflict
from app.statuses import DenialReason
from tests.app.promises import Promise, World

ENDS = {"completed", "cancelled", "rejected", "nothing_found"}


def cancel(world: World, number: int) -> None:
    end(world, number, "cancelled", lambda s, id_: cancelling.cancel(s, id_, "client"))


def reject(world: World, number: int) -> None:
    reason = DenialReason.NO_MATCH
    end(world, number, "rejected", lambda s, id_: cancelling.reject(s, id_, "o", reason, None))


def end(world: World, number: int, to: str, act: Callable[[Session, UUID], Cancellation]) -> None:
    promise = one_of(world, number)
    if promise is None:
        return
    expected = world.end(promise, to)
    try:
        with transaction() as session:
            answer = act(session, promise.id)
    except Conflict:
        assert expected is None
    else:
        assert (set(answer.cancelled), set(answer.too_late)) == expected


def approve(world: World, number: int) -> None:
    promise = one_of(world, number)
    if promise is None:
        return
    new = promise.is_held
    possible = new or promise.approved
    if decide(lambda s: reviewing.approve(s, promise.id, "o", None), possible=possible) and new:
        promise.decided["approve"] += 1
        world.approve(promise)


def reopen(world: World, number: int) -> None:
    promise = one_of(world, number)
    if promise is None:
        return
    new = promise.ended is not None
    possible = new or promise.decided["reopen"] > 0
    if decide(lambda s: reviewing.reopen(s, promise.id, "o", None), possible=possible) and new:
        promise.decided["reopen"] += 1
        world.reopen(promise)


def pause(world: World, number: int) -> None:
    promise = one_of(world, number)
    if promise is None:
        return
    ground, id_ = PauseGround.IDENTITY, promise.id
    possible = promise.status not in ENDS
    done = decide(lambda s: timekeeping.pause(s, id_, "o", ground, None), possible=possible)
    if done and not promise.paused:
        promise.decided["pause"] += 1
        world.pause(promise)


def resume(world: World, number: int) -> None:
    promise = one_of(world, number)
    if promise is None:
        return
    possible = promise.decided["pause"] > 0
    done = decide(lambda s: timekeeping.resume(s, promise.id, "o"), possible=possible)
    if done and promise.paused:
        promise.decided["resume"] += 1
        world.resume(promise)


def one_of(world: World, number: int) -> Promise | None:
    return world.promises[number % len(world.promises)] if world.promises else None


def decide(act: Callable[[Session], None], *, possible: bool) -> bool:
    try:
        with transaction() as session:
            act(session)
    except Conflict:
        assert not possible
    else:
        assert possible
    return possible


DECISIONS: Mapping[str, Callable[[World, int], None]] = {
    "cancel": cancel,
    "approve": approve,
    "refuse": reject,
    "reopen": reopen,
    "pause": pause,
    "resume": resume,
}
