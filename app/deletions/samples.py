"""Store the samples of new requests, and find the models that hold them.

Whole sets at a time, in few statements: digests lie side by side in one parameter, each 32 bytes,
and the place where a request's own begin tells whose they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

# COPY is faster for many, and waits for three answers where INSERT waits for one.
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
# From the digests themselves, each looked up in an index. A plan that began with the rows that this
# transaction has just inserted would be made by what PostgreSQL last counted there, and can be
# hundreds of times slower.
_HELD = f"""
    SELECT (%(ids)s::uuid[])[asked.number], held.model_id, count(*),
        count(*) FILTER (WHERE held.forgotten_by_job_id IS NULL)
    FROM {_SAMPLES} asked
    JOIN manifest_entries held ON held.sample_digest = asked.digest
    JOIN registered_models model ON model.id = held.model_id AND model.status = 'ready'
    GROUP BY 1, 2
"""  # noqa: S608  likewise


@dataclass(frozen=True, slots=True)
class Held:
    """How many samples of a request a model was trained on."""

    request_id: UUID
    model_id: UUID
    samples: int
    remaining: int
    """Those that no job has forgotten yet."""


def insert_samples(session: Session, digests: Mapping[UUID, Sequence[bytes]]) -> None:
    """Insert the digests of each request's samples."""
    side_by_side = _side_by_side(digests)
    if side_by_side["count"] > MOST_INSERTED:
        _copy(session, digests)
    elif digests:
        session.connection().exec_driver_sql(_INSERT, side_by_side)


def held_by_models(session: Session, digests: Mapping[UUID, Sequence[bytes]]) -> list[Held]:
    """Return what ready models hold of the samples of each request."""
    if not digests:
        return []
    rows = session.connection().exec_driver_sql(_HELD, _side_by_side(digests))
    return [Held(*row) for row in rows]


def _side_by_side(digests: Mapping[UUID, Sequence[bytes]]) -> dict[str, Any]:
    counts = [len(of_one) for of_one in digests.values()]
    return {
        "ids": list(digests),
        "starts": list(accumulate(counts, initial=1))[:-1],
        "count": sum(counts),
        "digests": b"".join(digest for of_one in digests.values() for digest in of_one),
    }


def _copy(session: Session, digests: Mapping[UUID, Sequence[bytes]]) -> None:
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)  # noqa: S101  # the one dialect
    try:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(_HEADER)
            for request_id, of_one in digests.items():
                # Two fields, the id of 16 bytes and a digest of 32, each after its length.
                start = b"\0\2\0\0\0\x10" + request_id.bytes + b"\0\0\0\x20"
                copy.write(start + start.join(of_one))
            copy.write(_END)
    except psycopg.OperationalError as error:
        raise OperationalError(None, None, error) from error
