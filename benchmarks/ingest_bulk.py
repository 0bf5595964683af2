"""Samples in one bulk intake, and as many rows by PostgreSQL's own COPY."""

import http.client
import json
import secrets
import struct
import time
from collections.abc import Iterator
from uuid import uuid4

from benchmarks.ingest_service import Service
from embedded.server import HOST

PATH = "/v1/deletion-requests:bulk"
# The same columns, primary key and index; no foreign key.
TABLE = "CREATE TABLE IF NOT EXISTS copied (LIKE requested_samples INCLUDING ALL)"
COPY = "COPY copied (request_id, sample_digest) FROM STDIN (FORMAT BINARY)"
CHUNK_BYTES = 1024**2


def taken_in(service: Service, lines: int, samples: int) -> float:
    """Send one stream, with so many samples in each line; return how many lines a second.

    Everything is sent before anything is read, from the first byte to the last answer.
    """
    body = b"".join(_lines(lines, samples))
    connection = http.client.HTTPConnection(HOST, service.port, timeout=3_600)
    headers = {
        "Authorization": f"Bearer {service.key}",
        "Idempotency-Key": secrets.token_hex(8),
        "Content-Type": "application/x-ndjson",
        "Content-Length": str(len(body)),
    }
    begun = time.perf_counter()
    connection.request("POST", PATH, iter(_chunks(body)), headers)
    answer = connection.getresponse()
    last = b""
    for line in answer:
        last = line
    took = time.perf_counter() - begun
    connection.close()
    if answer.status != 200 or json.loads(last) != {
        "lines": lines,
        "accepted": lines,
        "repeated": 0,
        "refused": 0,
    }:
        raise RuntimeError(f"not all was taken in: {answer.status} {last!r}")
    return lines / took


def copied(service: Service, lines: int, samples: int) -> float:
    """Copy as many rows into a table alike, in one transaction; return how many rows a second."""
    with service.servers.postgres.connect_as_admin("lethe") as connection:
        connection.execute(TABLE)
        parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
        for _ in range(lines):
            start = struct.pack("!hi16si", 2, 16, uuid4().bytes, 32)
            parts.append(b"".join(start + secrets.token_bytes(32) for _ in range(samples)))
        content = b"".join([*parts, b"\xff\xff"])
        begun = time.perf_counter()
        with connection.cursor().copy(COPY) as copy:
            for chunk in _chunks(content):
                copy.write(chunk)
        return lines * samples / (time.perf_counter() - begun)


def _lines(lines: int, samples: int) -> Iterator[bytes]:
    for _ in range(lines):
        visit = secrets.token_hex(8)
        ids = [f"visit-{visit}/scan-{place:05}" for place in range(samples)]
        yield json.dumps({"sample_ids": ids}).encode() + b"\n"


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]
