"""What looks at the log for streams has ended when the application has."""

import asyncio
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.events import reading
from app.events.broadcast import Broadcast
from app.main import create_app

pytestmark = pytest.mark.usefixtures("environment")


def test_finishing_waits_for_whoever_reads_and_lets_nobody_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[str] = []
    goes_on, size = threading.Event(), reading.size

    def slowly(*arguments: Any) -> Any:
        reads.append("begun")
        goes_on.wait(30)
        found = size(*arguments)
        reads.append("ended")
        return found

    monkeypatch.setattr(reading, "size", slowly)

    async def follow_and_finish() -> bool:
        broadcast = Broadcast()
        with broadcast.seat("somebody"):
            async with asyncio.timeout(30):
                while not reads:
                    await asyncio.sleep(0.001)
            finishing = asyncio.create_task(broadcast.finish())
            await asyncio.wait([finishing], timeout=0.1)
            waited = not finishing.done()
            goes_on.set()
            await finishing
            assert reads == ["begun", "ended"]
        await broadcast.finish()  # nobody is there to be waited for
        return waited

    assert asyncio.run(follow_and_finish())
    assert reads == ["begun", "ended"]


def test_it_is_finished_when_the_application_ends() -> None:
    app = create_app()
    with TestClient(app):
        assert not app.state.events.stopped
    assert app.state.events.stopped
