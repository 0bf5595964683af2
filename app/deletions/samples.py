"""Store the samples of new requests, and find the models that hold them.

Whole sets at a time, in few statements: digests lie side by side in one parameter, each 32 bytes,
and the place where a request's own begin tells whose they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.orm import Session

from app.statements import Row, Statement, driver, translated

# COPY is faster for many, and waits for three answers of its own.
MOST_INSERTED = 1_000
# Places count from 1 on, as PostgreSQL's arrays do.
_SAMPLES = """(
    SELECT width_bucket(place, %(starts)s::bigint[]) AS number,
        substring(%(digests)b::bytea FROM place::int * 32 - 31 FOR 32) AS digest
    FROM generate_series(1::bigint, %(count)s) place
)"""
_INSERT = f"""
    INSERT INTO requested_samples (request_id, sample_digest)
    SELECT (%(ids)s::uuid[])[asked.number], asked.digest FROM {_SAMPLES} asked
"""  # noqa: S608  nothing of a client's
_COPY = "COPY requested_samples (request_id, sample_digest) FROM STDIN (FORMAT BINARY)"
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
# From the digests themselves, each looked up in an index. A plan that began with rows that this
# transaction has just inserted would be made by what PostgreSQL last counted there, and can be
# hundreds of times slower.
_HELD = f"""
    SELECT asked.number, held.model_id, count(*),
        count(*) FILTER (WHERE held.forgotten_by_job_id IS NULL)
    FROM {_SAMPLES} asked
    JOIN manifest_entries held ON held.sample_digest = asked.digest
    JOIN registered_models model ON model.id = held.model_id AND model.status = 'ready'
    GROUP BY 1, 2
"""  # noqa: S608  likewise


@dataclass(frozen=True, slots=True)
class Held:
    """How many samples of a request a model was trained on."""

    model_id: UUID
    samples: int
    remaining: int
    """Those that no job has forgotten yet."""


def holders(digests: Sequence[Sequence[bytes]]) -> Statement:
    """Return the statement that finds what ready models hold of the samples of each request."""
    # How many there are decides between looking each up and reading all of a small manifest.
    return Statement(_HELD, _side_by_side(digests), prepared=False)


def read_holders(rows: Iterable[Row], requests: int) -> list[list[Held]]:
    """Return what was found, for each of so many requests in their order."""
    found: list[list[Held]] = [[] for _ in range(requests)]
    for number, *held in rows:
        found[number - 1].append(Held(*held))
    return found


def are_few(digests: Mapping[UUID, Sequence[bytes]]) -> bool:
    """Tell whether one statement inserts samples faster than COPY does."""
    return sum(map(len, digests.values())) <= MOST_INSERTED


def insertion(digests: Mapping[UUID, Sequence[bytes]]) -> Statement:
    """Return the statement that inserts the samples of each request."""
    return Statement(_INSERT, {**_side_by_side(digests.values()), "ids": list(digests)})


def _side_by_side(digests: Iterable[Sequence[bytes]]) -> dict[str, Any]:
    counts = [len(of_one) for of_one in digests]
    return {
        "starts": list(accumulate(counts, initial=1))[:-1],
        "count": sum(counts),
        "digests": b"".join(chain.from_iterable(digests)),
    }


def copy(session: Session, digests: Mapping[UUID, Sequence[bytes]]) -> None:
    """Insert the samples of each request, however many they are."""
    try:
        with driver(session).cursor() as cursor, cursor.copy(_COPY) as rows:
            rows.write(_HEADER)
            for request_id, of_one in digests.items():
                # Two fields, the id of 16 bytes and a digest of 32, each after its length.
                start = b"\0\2\0\0\0\x10" + request_id.bytes + b"\0\0\0\x20"
                rows.write(start + start.join(of_one))
            rows.write(_END)
    except psycopg.Error as error:
        raise translated(error) from error
