"""All rows that the checks look at, read in one transaction, as plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which what is stored contradicts what was promised."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log."""

    position: int | None
    """None where it has no place in the log."""
    event: str
    subject: str
    facts: Mapping[str, Any]
    payload: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database at one instant; rows by id, ids as text."""

    models: Mapping[str, Row]
    versions: Mapping[str, Row]
    requests: Mapping[str, Row]
    erasures: Mapping[str, Row]
    jobs: Mapping[str, Row]
    rungs: Sequence[Row]
    samples: Mapping[str, frozenset[bytes]]
    """The digests that each request asks for."""
    manifests: Mapping[str, Mapping[bytes, str | None]]
    """By model: each digest, and the job that forgot it."""
    entries: Sequence[Entry]
    """In the order of the log; those without a place last."""

    def events(self) -> dict[str, list[Entry]]:
        """Return what the log says of each row, oldest first."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.subject, []).append(entry)
        return found


def read(connection: psycopg.Connection[Any]) -> Snapshot:
    """Read a database as the connection's transaction sees it."""
    cursor = connection.cursor(row_factory=dict_row)

    def rows(question: str) -> list[dict[str, Any]]:
        return cursor.execute(question).fetchall()

    def by_id(table: str) -> dict[str, Row]:
        return {str(row["id"]): _textual(row) for row in rows(f"SELECT * FROM {table}")}  # noqa: S608

    samples: dict[str, set[bytes]] = {}
    for row in rows("SELECT * FROM requested_samples"):
        samples.setdefault(str(row["request_id"]), set()).add(bytes(row["sample_digest"]))
    manifests: dict[str, dict[bytes, str | None]] = {}
    for row in rows("SELECT * FROM manifest_entries"):
        job = row["forgotten_by_job_id"]
        manifest = manifests.setdefault(str(row["model_id"]), {})
        manifest[bytes(row["sample_digest"])] = None if job is None else str(job)
    return Snapshot(
        models=by_id("registered_models"),
        versions=by_id("model_versions"),
        requests=by_id("deletion_requests"),
        erasures=by_id("erasures"),
        jobs=by_id("unlearning_jobs"),
        rungs=[_textual(row) for row in rows("SELECT * FROM rungs ORDER BY attempt, position")],
        samples={id_: frozenset(digests) for id_, digests in samples.items()},
        manifests=manifests,
        entries=[_entry(row) for row in rows(ENTRIES)],
    )


ENTRIES = """
SELECT l.position, e.event, e.subject, e.payload FROM audit_entries e
LEFT JOIN audit_leaves l ON l.entry_id = e.id ORDER BY l.position NULLS LAST, e.id
"""


def _textual(row: Mapping[str, Any]) -> Row:
    return {
        name: str(value) if name.endswith("id") and value is not None else value
        for name, value in row.items()
    }


def _entry(row: Mapping[str, Any]) -> Entry:
    facts = json.loads(row["payload"])["facts"]
    return Entry(row["position"], row["event"], str(row["subject"]), facts, row["payload"])
