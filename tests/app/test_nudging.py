"""Workers hear of new requests at once, and not of each of many."""

import asyncio
from collections.abc import Callable

import pytest
from anyio import to_thread

from app import queue
from app.deletions import nudging
from app.deletions.nudging import Nudges

pytestmark = pytest.mark.usefixtures("environment")


class Workers:
    """Those who are nudged; a condition tells of each nudge."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()

    def nudge(self, task: str) -> bool:
        self.tasks.append(task)
        self.loop.call_soon_threadsafe(self.changed.set)
        return False

    async def heard(self, times: int) -> None:
        async with asyncio.timeout(30):
            while len(self.tasks) < times:
                self.changed.clear()
                await self.changed.wait()


def watch(monkeypatch: pytest.MonkeyPatch) -> Workers:
    workers = Workers()
    monkeypatch.setattr(queue, "nudge", workers.nudge)
    return workers


def test_the_first_of_them_is_told_at_once_and_many_after_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def store_many() -> list[str]:
        workers, nudges = watch(monkeypatch), Nudges()
        nudges.want()
        nudges.send()
        await workers.heard(1)
        for _ in range(50):
            nudges.want()
            nudges.send()
        await workers.heard(2)
        # A third one would be on its way by then.
        async with asyncio.timeout(30):
            while nudges.is_sending:
                await asyncio.sleep(nudging.PAUSE_SECONDS)
        return workers.tasks

    assert asyncio.run(store_many()) == [queue.PLAN] * 2


def test_none_is_sent_while_the_pause_after_another_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudging, "PAUSE_SECONDS", 3_600.0)

    async def store_again() -> list[str]:
        workers, nudges = watch(monkeypatch), Nudges()
        nudges.want()
        nudges.send()
        await workers.heard(1)
        nudges.want()
        nudges.send()
        # Time for a second one to reach a thread, as the first did.
        for _ in range(50):
            await to_thread.run_sync(workers.tasks.copy)
        return workers.tasks

    assert asyncio.run(store_again()) == [queue.PLAN]


def test_what_is_stored_while_a_nudge_is_on_its_way_is_told_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def store_meanwhile() -> int:
        workers, nudges = watch(monkeypatch), Nudges()
        nudge: Callable[[str], bool] = workers.nudge

        def stores_then_nudges(task: str) -> bool:
            if not workers.tasks:
                nudges.want()
            return nudge(task)

        monkeypatch.setattr(queue, "nudge", stores_then_nudges)
        nudges.want()
        nudges.send()
        await workers.heard(2)
        return len(workers.tasks)

    assert asyncio.run(store_meanwhile()) == 2


def test_nobody_is_told_where_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def store_nothing() -> bool:
        watch(monkeypatch)
        nudges = Nudges()
        nudges.send()
        return nudges.is_sending

    assert asyncio.run(store_nothing()) is False


def test_after_a_pause_the_next_is_told_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudging, "PAUSE_SECONDS", 0.001)

    async def store_twice() -> int:
        workers, nudges = watch(monkeypatch), Nudges()
        for times in (1, 2):
            nudges.want()
            nudges.send()
            await workers.heard(times)
            async with asyncio.timeout(30):
                while nudges.is_sending:
                    await asyncio.sleep(nudging.PAUSE_SECONDS)
        return len(workers.tasks)

    assert asyncio.run(store_twice()) == 2
