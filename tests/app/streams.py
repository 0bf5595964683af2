"""Streams of events, read over a socket as the HTML standard says (9.2.6), by no code of ours."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi.testclient import TestClient

from app.audit import service as audit
from app.events.broadcast import Broadcast, Limits
from app.main import create_app
from tests.conftest import API_KEY
from tests.serving import serving

PATIENCE_SECONDS = 20.0
# Looks at the log often, so that no test waits for it.
QUICK = Limits(interval=0.02)


@dataclass(frozen=True, slots=True)
class Heard:
    """One event as a browser dispatches it."""

    id: str
    event: str
    data: Any


@dataclass(slots=True)
class Ear:
    """Reads one stream."""

    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    last_id: str = ""
    comments: int = 0
    retry: int | None = None
    ids_given: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Heard]:
        event, data = "", []
        while line := self.answer.readline():
            text = line.decode().rstrip("\n")
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if not text:
                if data:
                    yield Heard(self.last_id, event or "message", json.loads("\n".join(data)))
                event, data = "", []
            elif text.startswith(":"):
                self.comments += 1
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last_id = value
                self.ids_given.append(value)
            elif name == "retry":
                self.retry = int(value)

    def until(self, event: str) -> list[Heard]:
        """Return what is heard up to an event of this name."""
        heard = []
        for each in self:
            heard.append(each)
            if each.event == event:
                return heard
        raise AssertionError(f"the stream ended without {event}: {heard}")

    def close(self) -> None:
        # The connection alone leaves the socket to the answer.
        self.answer.close()
        self.connection.close()


@dataclass(frozen=True, slots=True)
class Service:
    """A served application, and what its streams share."""

    url: str
    broadcast: Broadcast
    key: str = API_KEY

    @contextmanager
    def follow(self, path: str, after: str | None = None, key: str | None = None) -> Iterator[Ear]:
        """Open a stream."""
        headers = {} if after is None else {"Last-Event-ID": after}
        ear = self.ask(path, headers, key)
        try:
            assert ear.answer.status == 200, ear.answer.read()
            assert ear.answer.headers["Content-Type"].startswith("text/event-stream")
            yield ear
        finally:
            ear.close()

    def ask(self, path: str, headers: dict[str, str], key: str | None = None) -> Ear:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_SECONDS)
        connection.request(
            "GET", path, headers={"Authorization": f"Bearer {key or self.key}", **headers}
        )
        return Ear(connection, connection.getresponse())


@contextmanager
def served(limits: Limits = QUICK) -> Iterator[Service]:
    """Serve the application with these bounds on streams."""
    app = create_app()
    app.state.events = Broadcast(limits)
    with serving(app) as url:
        yield Service(url, app.state.events)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def place() -> None:
    """Give entries their places, as the scheduler does."""
    audit.place_all()


def logged(client: TestClient) -> list[dict[str, Any]]:
    """The log's entries as auditors read them."""
    items: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        page = client.get("/v1/audit/entries", params={"start": start, "limit": 200}).json()
        items += page["items"]
        start = page["next_start"]
    return [{"position": item["position"], **json.loads(item["entry"])} for item in items]
