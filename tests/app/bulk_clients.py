"""Clients of the bulk intake: one that sends and reads as it likes, and what answers mean."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import API_KEY

URL = "/v1/deletion-requests:bulk"
POLL_SECONDS = 0.02
KEY = {"Idempotency-Key": "stream"}


def ndjson(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def asking(count: int, prefix: str = "s") -> list[dict[str, Any]]:
    """Requests for one sample each, told apart by their references."""
    return [{"sample_ids": [f"{prefix}-{n}"], "reference": f"{prefix}-{n}"} for n in range(count)]


def parsed(content: bytes) -> list[dict[str, Any]]:
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Tell whether a condition comes to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)  # the interval of a poll; the condition is above
    return True


class Wire:
    """A connection whose two directions are used apart; bodies travel in chunks."""

    def __init__(self, address: str, key: str = "stream", patience: float = 60) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._socket = socket.socket()
        # Little that is not read yet fits between the two.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._socket.settimeout(patience)
        self._socket.connect((parts.hostname, parts.port))
        self._input = self._socket.makefile("rb")
        self._socket.sendall(
            f"POST {URL} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {API_KEY}\r\n"
            f"Idempotency-Key: {key}\r\nContent-Type: application/x-ndjson\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )

    def send(self, content: bytes) -> None:
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(content), content))

    def end(self) -> None:
        self._socket.sendall(b"0\r\n\r\n")

    def status(self) -> int:
        status = int(self._input.readline().split()[1])
        while self._input.readline() != b"\r\n":
            pass
        return status

    def chunks(self) -> Iterator[bytes]:
        while size := int(self._input.readline(), 16):
            yield self._input.read(size)
            self._input.readline()
        self._input.readline()

    def lines(self) -> Iterator[dict[str, Any]]:
        begun = b""
        for chunk in self.chunks():
            *ended, begun = (begun + chunk).split(b"\n")
            for line in ended:
                yield json.loads(line)
        assert not begun

    def close(self) -> None:
        self._input.close()
        self._socket.close()
