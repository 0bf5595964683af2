"""Clients with callbacks, and receivers that check messages by the text of the specification."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.db import transaction
from app.scopes import Scope
from app.tables import Callback, Delivery
from app.webhooks.outcomes import PAUSES
from tests.app.callers import bearer, give
from tests.app.outboxes import send_all
from tests.app.recalls import make_due
from tests.app.receivers import Received

CALLBACKS = "/v1/callbacks"
DELIVERIES = "/v1/deliveries"
SINCE = "2026-01-01T00:00:00Z"
PUBLIC = "https://shop.example.com/hooks/lethe?token=t0k3n"


@dataclass(frozen=True, slots=True)
class Subscribers:
    """Where clients register endpoints and ask what became of their messages."""

    http: TestClient

    def register(self, url: str = PUBLIC, events: list[str] | None = None) -> Any:
        answer = self.http.post(CALLBACKS, json={"url": url, "events": events})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def at(self, port: int, host: str = "127.0.0.1", events: list[str] | None = None) -> Any:
        return self.register(f"http://{host}:{port}/hook", events)

    def get(self, id_: str) -> Any:
        answer = self.http.get(f"{CALLBACKS}/{id_}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ping(self, id_: str) -> str:
        answer = self.http.post(f"{CALLBACKS}/{id_}/ping")
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"{DELIVERIES}/{answer.json()['id']}"
        return str(answer.json()["id"])

    def rotate(self, id_: str) -> Any:
        answer = self.http.post(f"{CALLBACKS}/{id_}/rotate")
        assert answer.status_code == 201, answer.text
        return answer.json()

    def delivery(self, id_: str) -> Any:
        answer = self.http.get(f"{DELIVERIES}/{id_}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def deliveries(self, **query: Any) -> list[Any]:
        answer = self.http.get(DELIVERIES, params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    def replay(self, id_: str) -> Any:
        return self.http.post(f"{DELIVERIES}/{id_}/replay")

    @contextmanager
    def acting(self, name: str, *scopes: Scope) -> Iterator[None]:
        """Call as a client of this name with these scopes alone."""
        own = self.http.headers["Authorization"]
        self.http.headers.update(bearer(give(name, *scopes)))
        try:
            yield
        finally:
            self.http.headers["Authorization"] = own


def key_of(shown: str) -> bytes:
    assert shown.startswith("whsec_")
    return base64.b64decode(shown.removeprefix("whsec_"), validate=True)


def signed_by(shown: str, request: Received) -> bool:
    """Tell whether one of a message's signatures is by this secret, as a receiver does."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.new(key_of(shown), signed, hashlib.sha256).digest()).decode()
    given = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    assert all(version == "v1" for version, _ in given)
    return any(hmac.compare_digest(wanted, signature) for _, signature in given)


def told(request: Received) -> tuple[str, str]:
    """The event and the deletion request of a message."""
    body = json.loads(request.body)
    return body["type"].rpartition(".")[2], body["data"]["id"]


def promised(*, callback: str | None = None) -> list[Delivery]:
    """The deliveries in the order in which they were promised."""
    statement = select(Delivery).order_by(Delivery.position)
    if callback is not None:
        statement = statement.where(Delivery.callback_id == UUID(callback))
    with transaction() as session:
        return list(session.scalars(statement))


def callback(id_: str) -> Callback:
    with transaction() as session:
        return session.get_one(Callback, UUID(id_))


def let_overlap_end() -> None:
    """Let every former secret have had its time."""
    with transaction() as session:
        session.execute(update(Callback).values(former_until=func.now() - timedelta(seconds=1)))


def replay_since(clients: Subscribers, callback: str, since: str = SINCE) -> Any:
    return clients.http.post(f"{CALLBACKS}/{callback}/replay", json={"since": since})


def send_until_given_up(times: int = len(PAUSES) + 1) -> None:
    """Make so many attempts at all that is open."""
    for _ in range(times):
        make_due()
        send_all()
