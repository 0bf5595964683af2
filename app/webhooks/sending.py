"""Send one message to one address, and to no other: looked up once, checked, and then dialled.

A name that leads elsewhere when it is asked again (DNS rebinding) is not asked again. Redirects are
not followed, proxies of the environment not used, and answers not read.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import httpcore2

from app.errors import AddressRefused
from app.webhooks.addresses import Address, IpNetwork, require_receiver

CONNECT_SECONDS = 5.0
# From the first look at the name to the head of the answer.
WHOLE_SECONDS = 15.0
# Who wants to be left alone for longer is asked again nevertheless.
RETRY_AFTER_LIMIT = timedelta(hours=12)

SocketOptions = Iterable[Any] | None


class NotSent(Exception):
    """Nobody took or refused the message; the words name the kind of the trouble alone."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a receiver said; its body is nobody's business."""

    status: int
    retry_after: timedelta | None


def post(
    address: Address,
    headers: Mapping[str, str],
    body: bytes,
    allowed: Sequence[IpNetwork] = (),
    tls: ssl.SSLContext | None = None,
) -> Answered:
    """Send a body and return what was answered, whatever that was.

    Args:
        address: where to.
        headers: besides those that the protocol asks for.
        body: what to send.
        allowed: networks, besides public ones, that the host may lie in.
        tls: which certificates are believed; those of the system if not given.

    Raises:
        NotSent: saying in a word or two what was in the way.

    """
    deadline = time.monotonic() + WHOLE_SECONDS
    dialled = _Dialler(_look_up(address, allowed), deadline)
    url = httpcore2.URL(
        scheme=address.scheme.encode(),
        host=address.host.encode(),
        port=address.port,
        target=address.target.encode(),
    )
    sent = {**headers, "Host": address.authority, "Content-Length": str(len(body))}
    try:
        with (
            httpcore2.ConnectionPool(ssl_context=tls or _tls(), network_backend=dialled) as pool,
            pool.stream("POST", url, headers=list(sent.items()), content=body) as response,
        ):
            return Answered(response.status, _retry_after(response.headers))
    except httpcore2.TimeoutException:
        raise NotSent("timed out") from None
    except httpcore2.NetworkError as error:
        unsafe = any(isinstance(cause, ssl.SSLError) for cause in error.args)
        raise NotSent("no secure connection" if unsafe else "no connection") from None
    except httpcore2.ProtocolError:
        raise NotSent("no HTTP") from None


def _look_up(address: Address, allowed: Sequence[IpNetwork]) -> list[str]:
    # All of them have to be in order: who answers with one that is not has something in mind.
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        raise NotSent("unknown host") from None
    hosts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    try:
        for host in hosts:
            require_receiver(ipaddress.ip_address(host), allowed)
    except AddressRefused:
        raise NotSent("address refused") from None
    return hosts


@cache
def _tls() -> ssl.SSLContext:
    return httpcore2.default_ssl_context()


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> timedelta | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return min(timedelta(seconds=int(value)), RETRY_AFTER_LIMIT)
    return None


class _Dialler(httpcore2.NetworkBackend):
    """Connects to the IP addresses that it was given, whatever host it is asked for."""

    def __init__(self, hosts: Sequence[str], deadline: float) -> None:
        """Take IP addresses to try in order, and the end of time on the monotonic clock."""
        self._hosts = hosts
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002  # the name; asked again, it may have become another address
        port: int,
        timeout: float | None = None,  # noqa: ARG002  # there is one for the whole
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore2.NetworkStream:
        """Return the first connection that comes about.

        Raises:
            httpcore2.ConnectError: none did.
            httpcore2.ConnectTimeout: none did in time.

        """
        failed: Exception = httpcore2.ConnectTimeout()
        for ip in self._hosts:
            try:
                left = min(CONNECT_SECONDS, _left(self._deadline, httpcore2.ConnectTimeout))
                stream = httpcore2.SyncBackend().connect_tcp(
                    ip, port, left, local_address, socket_options
                )
                return _Timed(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


class _Timed(httpcore2.NetworkStream):
    """A connection that ends at a fixed time, however slowly the other side dribbles."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        """Take the connection and its end on the monotonic clock."""
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Read what has come."""
        return self._stream.read(max_bytes, _left(self._deadline, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Write everything."""
        self._stream.write(buffer, _left(self._deadline, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        """Return the connection under TLS, its certificate checked for the name."""
        left = _left(self._deadline, httpcore2.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return _Timed(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows of itself."""
        return self._stream.get_extra_info(info)


def _left(deadline: float, late: type[Exception]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late
    return left
