"""Somebody outside who keeps tree heads, behind a real server on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lethe.verify import EMPTY_ROOT
from lethe.verify.note import Checkpoint, peek
from lethe.verify.reasons import NotProven
from lethe.verify.witness import advance
from tests.app.signed_logs import public_keys

Answer = tuple[int, dict[str, str], bytes]
TAKEN: Answer = (204, {}, b"")
# Sent again and again, for as long as somebody listens.
ENDLESS = b"9" * 65536


@dataclass
class Witness:
    """Somebody outside who pins heads, with nothing but the public keys."""

    url: str = ""
    pinned: Checkpoint | None = None
    refused: list[NotProven] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: list[Callable[[], Answer]] = field(default_factory=list)
    """What it does instead of looking, one each."""

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((path, headers))
        if self.answers:
            return self.answers.pop(0)()
        message = json.loads(body)
        self.heard.append(message)
        size = 0 if self.pinned is None else self.pinned.size
        if message["previous_size"] != size:
            return 409, {"Content-Type": "text/x.tlog.size"}, f"{size}\n".encode()
        try:
            self.pinned = follow(self.pinned, message)
        except NotProven as error:
            self.refused.append(error)
            return 422, {}, b""
        return TAKEN


def follow(pinned: Checkpoint | None, message: dict[str, Any]) -> Checkpoint:
    """What a witness does with a message; from the beginning, it has an empty log."""
    keys = public_keys()
    if pinned is None:
        origin = peek(message["checkpoint"]).origin
        pinned = Checkpoint(origin, 0, EMPTY_ROOT, datetime(2000, 1, 1, tzinfo=UTC))
    return advance(pinned, message["checkpoint"], message["consistency"], keys)


@contextmanager
def listening(witness: Witness, path: str = "") -> Iterator[Witness]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, content = witness.answer(self.path, dict(self.headers), body)
            self.send_response(status)
            length = 10**12 if content is ENDLESS else len(content)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                while True:
                    self.wfile.write(content)
                    if content is not ENDLESS:
                        break

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        witness.url = f"http://127.0.0.1:{server.server_port}{path}"
        yield witness
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
