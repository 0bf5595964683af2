"""Records as JSON Lines or CSV, a piece at a time."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum

from app.exports.records import COLUMNS, Record

# A spreadsheet takes a cell that begins so for a formula, and clients choose their references.
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """How records are written."""

    JSONL = "jsonl"
    CSV = "csv"


MEDIA_TYPES = {Format.JSONL: "application/jsonl", Format.CSV: "text/csv; charset=utf-8"}


def write(records: Iterable[Record], chosen: Format) -> Iterator[str]:
    """Yield the records in a format, line by line; CSV begins with the columns' names."""
    if chosen is Format.JSONL:
        for record in records:
            yield json.dumps(asdict(record), ensure_ascii=False) + "\n"
        return
    yield _row(COLUMNS)
    for record in records:
        yield _row(map(_cell, asdict(record).values()))


def _row(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value.startswith(FORMULA_BEGINS):
        return "'" + value
    return value
