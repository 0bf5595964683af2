"""Receivers of messages: real servers on loopback, and names that lead to them."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """A web server that notes what it gets."""

    port: int = 0
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    """The most requests that it had under way at a time."""
    hold: threading.Event | None = None
    """Answers are given when it is set."""
    got: threading.Event = field(default_factory=threading.Event)
    """Set by the first request."""
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Received) -> None:
        with self._lock:
            self.received.append(request)
            self._open += 1
            self.at_once = max(self.at_once, self._open)
        self.got.set()
        if self.hold is not None:
            self.hold.wait(20)
        with self._lock:
            self._open -= 1


@contextmanager
def listening(
    receiver: Receiver | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: SSLContext | None = None,
) -> Iterator[Receiver]:
    """Serve until the block ends."""
    chosen = receiver or Receiver()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            chosen.take(Received(self.path, dict(self.headers), self.rfile.read(length)))
            self.send_response(chosen.status)
            for name, value in chosen.headers.items():
                self.send_header(name, value)
            if chosen.status != 204:
                self.send_header("Content-Length", str(len(chosen.body)))
            self.end_headers()
            self.wfile.write(chosen.body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away, as some of these do

    server = Quiet((host, port), Answering)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    chosen.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield chosen
    finally:
        if chosen.hold is not None:
            chosen.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections and do as told with each; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the other side went away
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=20)


@dataclass(slots=True)
class Names:
    """A name service of the test's own; IP addresses are themselves."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    """Of each name what it answers first, then, and from then on."""
    asked: list[str] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = socket.getaddrinfo

        def look_up(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
            if host not in self.answers:
                return real(host, port, *args, flags=socket.AI_NUMERICHOST, **without(kwargs))
            self.asked.append(host)
            rest = self.answers[host]
            now = rest.pop(0) if len(rest) > 1 else rest[0]
            return [found for ip in now for found in real(ip, port, *args, **kwargs)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)


def without(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "flags"}


def verify(secret: bytes, request: Received) -> Any:
    """Check a message as the specification tells its receivers; return its content."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    id_, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    content = b".".join([id_.encode("ascii"), timestamp.encode("ascii"), request.body])
    mac = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode("ascii")
    versions = dict(part.split(",", 1) for part in headers["webhook-signature"].split(" "))
    assert versions == {"v1": mac}
    assert "." not in id_
    assert timestamp == str(int(timestamp))
    return json.loads(request.body)
