"""Every route × every scope × what is one's own and what is not, held against a table by hand.

A new route fails the first test until it has a row in `TABLE`. What belongs to a client is named in
a path by a parameter of `OWNED`, which says how to make one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute
from starlette.types import Message

from app.scopes import Scope
from app.security import OPEN_PATHS
from tests.app.belongings import OWNED, callback_of, delivery_of, request_of
from tests.app.callers import bearer, give, revoke
from tests.app.controllers import set_up

SCOPES = {
    "s": Scope.SUBMIT,
    "r": Scope.READ,
    "d": Scope.DECIDE,
    "m": Scope.MODELS,
    "a": Scope.AUDIT,
    "o": Scope.OPS,
}
EVERY = "srdmao"


@dataclass(frozen=True, slots=True)
class Row:
    """Which scopes open a route, by their letters; all others are forbidden."""

    any: str = ""
    """For what belongs to anybody, or to nobody."""
    own: str = ""
    """For what belongs to the caller; what does not is hidden, as if it were not there."""
    body: Any = None
    streams: bool = False


OPEN = Row()

TABLE = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /docs": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs/oauth2-redirect": Row(EVERY),
    "GET /v1/keys": OPEN,
    # Deletion requests
    "POST /v1/deletion-requests": Row("s"),
    "POST /v1/deletion-requests:bulk": Row("s"),
    "GET /v1/deletion-requests": Row("rdao"),
    "GET /v1/deletion-requests/{request_id}": Row("dao", own="r"),
    "GET /v1/deletion-requests/{request_id}/receipt": Row("dao", own="r"),
    "GET /v1/deletion-requests/{request_id}/decisions": Row("dao", own="r"),
    "GET /v1/deletion-requests/{request_id}/events": Row("dao", own="r", streams=True),
    "POST /v1/deletion-requests/{request_id}/cancel": Row("d", own="s"),
    "POST /v1/deletion-requests/{request_id}/retry": Row("do"),
    "POST /v1/deletion-requests/{request_id}/approve": Row("d"),
    "POST /v1/deletion-requests/{request_id}/reject": Row("d"),
    "POST /v1/deletion-requests/{request_id}/reopen": Row("d"),
    "POST /v1/deletion-requests/{request_id}/extend": Row("d"),
    "POST /v1/deletion-requests/{request_id}/pause": Row("d"),
    "POST /v1/deletion-requests/{request_id}/resume": Row("d"),
    "POST /v1/deletion-requests/{request_id}/confirm": Row("d"),
    "GET /v1/events": Row("rdao", streams=True),
    # Callbacks
    "POST /v1/callbacks": Row("so"),
    "GET /v1/callbacks": Row("so"),
    "GET /v1/callbacks/{callback_id}": Row("o", own="s"),
    "DELETE /v1/callbacks/{callback_id}": Row("o", own="s"),
    "POST /v1/callbacks/{callback_id}/rotate": Row("o", own="s"),
    "POST /v1/callbacks/{callback_id}/ping": Row("o", own="s"),
    "POST /v1/callbacks/{callback_id}/replay": Row(
        "o", own="s", body={"since": "2026-01-01T00:00:00Z"}
    ),
    "GET /v1/deliveries": Row("so"),
    "GET /v1/deliveries/{delivery_id}": Row("o", own="s"),
    "POST /v1/deliveries/{delivery_id}/replay": Row("o", own="s"),
    # OpenDSR: an id is the controller's own, and means nothing for another
    "POST /opendsr/2.0/requests": Row("s"),
    "GET /opendsr/2.0/requests/{subject_request_id}": Row(own="rdao"),
    "DELETE /opendsr/2.0/requests/{subject_request_id}": Row(own="sd"),
    "GET /opendsr/2.0/discovery": OPEN,
    "GET /opendsr/2.0/certificate": OPEN,
    "GET /opendsr/2.0/status": OPEN,
    # Models
    "POST /v1/checkpoints": Row("m"),
    "GET /v1/checkpoints/{digest}": Row("m"),
    "POST /v1/models": Row("m"),
    "GET /v1/models": Row(EVERY),
    "GET /v1/models/{name}": Row(EVERY),
    "GET /v1/models/{name}/versions": Row(EVERY),
    "GET /v1/models/{name}/versions/{number}": Row(EVERY),
    "GET /v1/models/{name}/current": Row(EVERY),
    "GET /v1/models/{name}/current/weights": Row("mo"),
    "GET /v1/models/{name}/versions/{number}/weights": Row("mo"),
    "GET /v1/models/{name}/current/signature": Row("mo"),
    "GET /v1/models/{name}/versions/{number}/signature": Row("mo"),
    "GET /v1/models/{name}/versions/{number}/deletions": Row("a"),
    "GET /v1/samples/{sample_digest}": Row("a"),
    # Recall
    "POST /v1/models/{name}/recipients": Row("mo"),
    "GET /v1/models/{name}/recipients": Row("mao"),
    "GET /v1/models/{name}/recipients/{recipient_id}": Row("mao"),
    "DELETE /v1/models/{name}/recipients/{recipient_id}": Row("mo"),
    "GET /v1/models/{name}/recipients/{recipient_id}/notices": Row("mao"),
    "GET /v1/notices": Row("mao"),
    "GET /v1/notices/{notice_id}": Row("mao"),
    "POST /v1/notices/{notice_id}/acknowledgement": Row("mo"),
    # Jobs
    "GET /v1/jobs": Row("dmao"),
    "GET /v1/jobs/{job_id}": Row("dmao"),
    "POST /v1/jobs/{job_id}/retry": Row("do"),
    "GET /v1/jobs/{job_id}/events": Row("dmao", streams=True),
    # Evidence
    "GET /v1/exports/requests": Row("a"),
    "GET /v1/exports/summary": Row("a"),
    "GET /v1/audit/head": Row("a"),
    "GET /v1/audit/checkpoint": Row("a"),
    "GET /v1/audit/export": Row("a"),
    "GET /v1/audit/entries": Row("a"),
    "GET /v1/audit/proofs/inclusion": Row("a"),
    "GET /v1/audit/proofs/consistency": Row("a"),
    # Access
    "POST /v1/access-keys": Row("o"),
    "GET /v1/access-keys": Row("o"),
    "GET /v1/access-keys/{key_id}": Row("o"),
    "DELETE /v1/access-keys/{key_id}": Row("o"),
}

# What is nobody's: there need not be any, since who may not ask is refused before it is looked for.
NOBODYS = {
    "name": "digits",
    "number": "1",
    "digest": "sha256:" + "0" * 64,
    "sample_digest": "0" * 64,
    **dict.fromkeys(("job_id", "recipient_id", "notice_id", "key_id"), str(uuid4())),
}


@pytest.fixture
def anybody(
    environment: dict[str, str], reread: Callable[[str, str], None], tmp_path: Path
) -> Iterator[TestClient]:
    """The API as somebody finds it who has no credential yet."""
    from app.main import create_app

    with set_up(reread, tmp_path), TestClient(create_app()) as found:
        yield found


def routes_of(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from routes_of(included.routes)
        else:
            for method in getattr(route, "methods", None) or ["?"]:
                if method != "HEAD":
                    yield f"{method} {getattr(route, 'path', route)}"


def fill(path: str, **own: UUID) -> str:
    return path.format(**{**NOBODYS, **{name: str(id_) for name, id_ in own.items()}})


def ask(client: TestClient, route: str, row: Row, key: str, **own: UUID) -> tuple[int, bytes]:
    """Call a route; returns the status, and the body unless it is a stream that goes on."""
    method, path = route.split(" ")
    if row.streams:
        return client.portal.call(open_stream, client.app, fill(path, **own), key)  # type: ignore[union-attr]
    answer = client.request(method, fill(path, **own), headers=bearer(key), json=row.body)
    return answer.status_code, answer.content


async def open_stream(app: Any, path: str, key: str) -> tuple[int, bytes]:
    """Ask for a stream and hang up when it begins; TestClient would wait for its end."""
    begun, status, body = anyio.Event(), 0, b""

    async def receive() -> Message:
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")
        # Whatever is refused comes whole; a stream is hung up at its first part.
        if message["type"] == "http.response.body":
            begun.set()

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"host", b"testserver")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": headers,
        "client": ("testclient", 1),
        "server": ("testserver", 80),
    }
    with anyio.fail_after(20):
        await app(scope, receive, send)
    return status, b"" if status == 200 else body


def observe(client: TestClient, route: str, row: Row, key: str) -> str:
    """Tell how a route treats the client `mine`: allowed, own, forbidden, or what else it does."""
    owned = next((name for name in OWNED if f"{{{name}}}" in route), None)
    if owned is None:
        status, _ = ask(client, route, row, key)
        return {401: "closed", 403: "forbidden"}.get(status, "allowed")
    mine = ask(client, route, row, key, **{owned: OWNED[owned]("mine")})
    if mine[0] == 403:
        return "forbidden"
    theirs = ask(client, route, row, key, **{owned: OWNED[owned]("theirs")})
    unknown = ask(client, route, row, key, **{owned: uuid4()})
    if mine[0] in (401, 404):
        return f"odd: own {mine[0]}"
    if theirs == unknown and theirs[0] == 404:
        return "own"
    return f"odd: foreign {theirs[0]}" if theirs[0] in (401, 403, 404) else "allowed"


def expected(row: Row, letter: str) -> str:
    if letter in row.own:
        return "own"
    return "allowed" if letter in row.any else "forbidden"


CLOSED = {route: row for route, row in TABLE.items() if row is not OPEN}


def test_every_route_has_a_row(anybody: TestClient) -> None:
    assert set(routes_of(anybody.app.routes)) == set(TABLE)  # type: ignore[attr-defined]
    assert {route.split(" ")[1] for route, row in TABLE.items() if row is OPEN} == OPEN_PATHS


def test_a_scope_opens_what_the_table_says(anybody: TestClient) -> None:
    for letter, scope in SCOPES.items():
        key = give("mine", scope)
        found = {route: observe(anybody, route, row, key) for route, row in CLOSED.items()}
        assert found == {route: expected(row, letter) for route, row in CLOSED.items()}, scope


def test_without_a_scope_everything_is_forbidden(anybody: TestClient) -> None:
    key = give("mine")
    found = {route: observe(anybody, route, row, key) for route, row in CLOSED.items()}
    # A page of the documentation's, which names nobody.
    assert found.pop("GET /docs/oauth2-redirect") == "allowed"
    assert set(found.values()) == {"forbidden"}


def test_without_a_credential_that_is_in_order_everything_is_closed(anybody: TestClient) -> None:
    revoked = give("mine", *Scope)
    revoke(revoked)
    expired = give("mine", *Scope, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    ids = {name: uuid4() for name in OWNED}
    bodies = set()
    for route, row in CLOSED.items():
        for key in (revoked, expired, ""):
            status, body = ask(anybody, route, row, key, **ids)
            assert status == 401, (route, key)
            # Those of OpenDSR have their own form, and a signature.
            if "/opendsr/" not in route:
                bodies.add(body)
    assert len(bodies) == 1
    for route, row in TABLE.items():
        if row is OPEN:
            assert ask(anybody, route, row, revoked)[0] == 200, route


def test_a_list_has_what_its_reader_may_see(anybody: TestClient) -> None:
    for path, kind, own, everybodys in (
        ("/v1/deletion-requests", request_of, "r", "dao"),
        ("/v1/callbacks", callback_of, "s", "o"),
        ("/v1/deliveries", delivery_of, "s", "o"),
    ):
        mine, theirs = str(kind("mine")), str(kind("theirs"))
        for letter in own + everybodys:
            listed = anybody.get(path, headers=bearer(give("mine", SCOPES[letter]))).json()["items"]
            seen = {item["id"] for item in listed}
            assert seen == ({mine} if letter in own else {mine, theirs}), (path, letter)
