"""What lies in files: the versions' weights, sample IDs that should not, nudges of nothing."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from tests.chaos.checker.snapshot import Snapshot, Violation

# What a worker logs that is nudged for a job of which no row exists.
PHANTOM = '"event": "job.unknown"'


def artifacts(now: Snapshot, folder: Path) -> Iterator[Violation]:
    """Yield versions whose weights are not in the store, or not those that the version names."""
    for digest in {version["digest"] for version in now.versions.values()}:
        name = digest.removeprefix("sha256:")
        path = folder / "sha256" / name[:2] / name
        if not path.is_file():
            yield Violation("artifacts", f"{digest} is not in the store")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != name:
            yield Violation("artifacts", f"the file of {digest} holds something else")


def phantoms(logs: Path) -> Iterator[Violation]:
    """Yield each nudge that named a job which was not committed."""
    for path in sorted(logs.glob("worker-*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if PHANTOM in line:
                yield Violation("phantoms", f"{path.name}: {line}")


def spellings(text: str) -> dict[str, bytes]:
    """Return a text as programs write it, by the name of the spelling."""
    raw = text.encode()
    found = {
        "plain": raw,
        "utf-16": text.encode("utf-16-le"),
        "hexadecimal": raw.hex().encode(),
        "escaped": json.dumps(text)[1:-1].replace("/", "\\/").encode(),
        "sha-256": hashlib.sha256(raw).digest(),
        "sha-256 in hexadecimal": hashlib.sha256(raw).hexdigest().encode(),
    }
    # Wherever it stands in what is encoded: the letters that depend on its neighbours are cut off.
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        found[f"base64, shifted by {shift}"] = encoded[4 if shift else 0 : -4]
    return found


def plaintext(
    folders: Sequence[Path], streams: Mapping[str, bytes], mark: str, ids: Iterable[str]
) -> Iterator[Violation]:
    """Yield each file or stream that holds what every sample ID begins with, or one of the IDs."""
    wanted = spellings(mark)
    for id_ in ids:
        hashed = spellings(id_)
        wanted |= {name: hashed[name] for name in hashed if name.startswith("sha-256")}
    for name, content in _written(folders, streams):
        for spelling, pattern in wanted.items():
            if pattern in content:
                yield Violation("plaintext", f"{name} holds a sample ID ({spelling})")


def holding(folders: Sequence[Path], streams: Mapping[str, bytes], canary: str) -> list[str]:
    """Return the files and streams that hold a text as it is: the search's own control."""
    return [name for name, content in _written(folders, streams) if canary.encode() in content]


def dump(url: str) -> bytes:
    """Return every row of every table as text, whatever PostgreSQL compressed on its disk."""
    lines: list[str] = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for (table,) in tables:
            rows = SQL("SELECT t::text FROM {} AS t").format(Identifier(table))
            lines += [row for (row,) in connection.execute(rows)]
    return "\n".join(lines).encode()


def _written(folders: Sequence[Path], streams: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    yield from streams.items()
    for folder in {folder.resolve() for folder in folders}:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()
