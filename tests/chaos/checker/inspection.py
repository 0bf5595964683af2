"""Read all that a run has left behind, and hold it against what was promised."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import psycopg

from app.privacy import digest_sample_id
from tests.chaos.checker import bytes_written, chains, promises
from tests.chaos.checker.log import log, replayed
from tests.chaos.checker.snapshot import Snapshot, Violation, read
from tests.chaos.checker.traces import retained
from tests.chaos.fleet import Fleet
from tests.chaos.history import History
from tests.chaos.recipe import LATE_RECORDS, LONG_RECORDS, TRACES, sample_id
from tests.chaos.world import LATE_RECIPE, LONG, World


@dataclass(frozen=True, slots=True)
class Found:
    """What the checks came to, and how much there was to check."""

    counts: dict[str, int]
    violations: list[Violation]


def inspect(fleet: Fleet, world: World, history: History) -> Found:
    """Check everything; the programs are stopped, and the servers are when this returns."""
    url = fleet.database_url
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        now = read(connection)
    violations = [
        *promises.lost(now, history, fleet.id_key),
        *promises.doubled(now, history),
        *chains.forks(now),
        *chains.unverified(now),
        *log(now, history),
        *replayed(url.replace("postgresql:", "postgresql+psycopg:")),
        *bytes_written.artifacts(now, fleet.state / "artifacts"),
        *bytes_written.phantoms(fleet.logs),
        *retained(now, fleet.folder / TRACES, partial(digests_of, world, fleet.id_key)),
    ]
    rows = bytes_written.dump(url)
    fleet.stop_servers()
    violations += search(fleet, world, rows)
    return Found(counted(now, history), violations)


def digests_of(world: World, id_key: bytes, recipe: str) -> list[bytes]:
    """Return the digests of a recipe's records, in their order."""
    indices = range(world.common)
    if recipe == LONG:
        indices = range(world.common, world.common + LONG_RECORDS)
    elif recipe == LATE_RECIPE:
        indices = range(LATE_RECORDS)
    return [digest_sample_id(id_key, sample_id(world.mark, index)) for index in indices]


def search(fleet: Fleet, world: World, rows: bytes) -> list[Violation]:
    """Search every byte that the service wrote, and see that the search finds what is there."""
    folders = [fleet.state, (fleet.state / "data").resolve()]
    streams = {
        "the rows": rows,
        "what the broker was told": (fleet.folder / "broker.log").read_bytes(),
    }
    violations = list(bytes_written.plaintext(folders, streams, world.mark, world.some_ids()))
    holding = bytes_written.holding(folders, streams, world.canary)
    if len(holding) < 2:
        what = f"the search missed what was stored in plain words: only {holding}"
        violations.append(Violation("unchecked", what))
    if b"lethe.run_job" not in streams["what the broker was told"]:
        violations.append(Violation("unchecked", "nothing was heard of what the broker was told"))
    return violations


def counted(now: Snapshot, history: History) -> dict[str, int]:
    """Return how much there was to check."""
    requests = Counter(row["status"] for row in now.requests.values())
    jobs = Counter(row["status"] for row in now.jobs.values())
    return {
        "completed": requests["completed"],
        "cancelled": requests["cancelled"],
        "nothing_found": requests["nothing_found"],
        "erasures": len(now.erasures),
        "jobs": len(now.jobs),
        "published": jobs["published"],
        "attempts": sum(job["attempts"] for job in now.jobs.values()),
        "rebases": sum(job["rebase"] for job in now.jobs.values()),
        "versions": len(now.versions),
        "entries": len(now.entries),
        "heads": len(history.heads),
    }
