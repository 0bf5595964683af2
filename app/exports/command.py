"""``lethe export``: the records of a period, or its yearly numbers, for an authority."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app.db import now, transaction
from app.exports import formats, summary
from app.exports.formats import Format
from app.exports.records import Period, records


def main(arguments: Sequence[str]) -> int:
    """Write what is asked for; returns 0, or 2 if the database does not answer."""
    parser = argparse.ArgumentParser(prog="lethe export", description=__doc__)
    add = parser.add_argument
    add("--from", dest="start", type=moment, required=True, help="day or time, UTC unless it says")
    add("--to", dest="end", type=moment, required=True, help="not part of the period")
    add("--format", type=Format, choices=list(Format), default=Format.JSONL)
    add("--summary", action="store_true", help="yearly counts and median days instead, as JSON")
    add("--out", type=Path, help="a file to make; standard output without it")
    asked = parser.parse_args(arguments)
    if asked.start >= asked.end:
        parser.error("--from lies before --to")
    period = Period(asked.start, asked.end)
    try:
        every = formats.write(records(period, now()), asked.format)
        _write(yearly(period) if asked.summary else every, asked.out)
    except SQLAlchemyError as error:
        sys.stderr.write(f"The database does not answer: {type(error).__name__}\n")
        return 2
    except FileExistsError:
        sys.stderr.write(f"{asked.out} exists; name another file\n")
        return 2
    return 0


def moment(text: str) -> datetime:
    """Return the time that an argument names; UTC, unless it names another zone."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def yearly(period: Period) -> Iterable[str]:
    """Yield the yearly numbers as one JSON document."""
    with transaction() as session:
        rows = summary.years(session, period)
    yield json.dumps({"years": [asdict(row) for row in rows]}, indent=2) + "\n"


def _write(lines: Iterable[str], path: Path | None) -> None:
    if path is None:
        sys.stdout.writelines(lines)
        return
    # Newlines as they come: CSV has its own (RFC 4180).
    with path.open("x", encoding="utf-8", newline="") as file:
        file.writelines(lines)
