"""Keep-alive connections that ask one thing after another, in a process of its own.

``python -m benchmarks.ingest_load`` reads orders from its standard input, one JSON object a line,
and answers each with another. Plain sockets in threads: a client that parses no more than it must,
so that the server is what is measured.
"""

import json
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

# Samples that a model holds: one of them is in every second body.
KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, over how many connections, for how long; and how often, None for at once."""

    port: int
    key: str
    method: str
    path: str
    connections: int
    seconds: float
    samples: int = 0
    per_second: float | None = None


@dataclass(slots=True)
class Tally:
    """What one connection saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


class Load:
    """The process that asks."""

    def __init__(self) -> None:
        """Starts it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ingest_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, order: Order) -> None:
        """Have it ask."""
        if self._process.stdin is None:
            raise RuntimeError("started without pipes")
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)

    def finish(self) -> dict[str, Any]:
        """Wait for the end of what was begun; return rates, latencies and statuses."""
        if self._process.stdout is None:
            raise RuntimeError("started without pipes")
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def ask(self, order: Order) -> dict[str, Any]:
        """Have it ask, and wait for the end."""
        self.begin(order)
        return self.finish()

    def close(self) -> None:
        """End it: it reads until its input ends."""
        self._process.communicate()


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        """Opens it."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> int:
        """Send a request and return its answer's status."""
        self._socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        lowered = head.lower()
        start = lowered.index(b"content-length:") + 15
        length = int(lowered[start:].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._more()
        return int(head[9:12])

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _more(self) -> bytes:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        return received


def body_of(samples: int, draw: random.Random) -> bytes:
    """Return a request for samples nobody has asked for before; every second one, one is known."""
    ids = [f"visit-{draw.getrandbits(64):016x}/scan-{place:05}" for place in range(samples)]
    if draw.random() < 0.5:
        ids[0] = f"known-{draw.randrange(KNOWN)}"
    return json.dumps({"sample_ids": ids, "reference": f"case-{draw.randrange(10**6)}"}).encode()


def run(order: Order) -> dict[str, Any]:
    """Keep all connections busy for the time; return rates, latencies and statuses."""
    tallies = [Tally() for _ in range(order.connections)]
    # Made before the clock starts.
    threads = [
        threading.Thread(target=_work, args=(order, tally, _requests(order, place)))
        for place, tally in enumerate(tallies)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    seconds = sorted(second for tally in tallies for second in tally.seconds)
    statuses: dict[int, int] = {}
    for tally in tallies:
        for status, count in tally.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return {
        "rate": len(seconds) / took,
        "p50": seconds[len(seconds) // 2],
        "p99": seconds[len(seconds) * 99 // 100],
        "statuses": statuses,
    }


def _requests(order: Order, place: int) -> Callable[[], bytes]:
    head = (
        f"{order.method} {order.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {order.key}\r\n"
    )
    if not order.samples:
        whole = (head + "\r\n").encode()
        return lambda: whole
    draw = random.Random(secrets.randbits(64))  # noqa: S311  no secrets, but no two alike
    # As many as a connection sends in a few seconds; their keys are new each time.
    bodies = [body_of(order.samples, draw) for _ in range(200)]
    run_key, sent = secrets.token_hex(8), iter(range(10**9))

    def make() -> bytes:
        number = next(sent)
        body = bodies[number % len(bodies)]
        return (
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {run_key}-{place}-{number}\r\n\r\n"
        ).encode() + body

    return make


def _work(order: Order, tally: Tally, request: Callable[[], bytes]) -> None:
    connection = Connection(order.port)
    end = time.perf_counter() + order.seconds
    pause = order.connections / order.per_second if order.per_second else 0.0
    due = time.perf_counter()
    try:
        while (begun := time.perf_counter()) < end:
            if begun < due:
                time.sleep(due - begun)
                begun = time.perf_counter()
            due += pause
            status = connection.ask(request())
            tally.seconds.append(time.perf_counter() - begun)
            tally.statuses[status] = tally.statuses.get(status, 0) + 1
    finally:
        connection.close()


def main() -> int:
    """Obey until the input ends."""
    for line in sys.stdin:
        print(json.dumps(run(Order(**json.loads(line)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
