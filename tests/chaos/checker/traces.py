"""Was a forgotten sample ever shown again as one to retain? (Invariant 5.)"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.chaos.checker.snapshot import Snapshot, Violation

Digests = Callable[[str], list[bytes]]


def retained(now: Snapshot, folder: Path, digests_of: Digests) -> Iterator[Violation]:
    """Yield jobs whose methods were shown what was forgotten before, or retrained on their own.

    ``digests_of`` gives a recipe's digests in the order of its records.
    """
    jobs = {job["seed"]: job for job in now.jobs.values()}
    forgotten = {
        model_id: _forgotten_by(now.manifests[model_id], digests_of(model["recipe"]))
        for model_id, model in now.models.items()
        if model_id in now.manifests
    }
    numbers = {v["job_id"]: v["number"] for v in now.versions.values() if v["job_id"]}
    traced: set[str] = set()
    for seed, kind, shown in _lines(folder):
        job = jobs.get(seed)
        if job is None:
            continue  # the check of a model, which is no job
        traced.add(job["id"])
        parent = now.versions[job["parent_version_id"]]["number"]
        gone = 0
        for by, records in forgotten[job["model_id"]].items():
            if numbers.get(by, 0) <= parent or (kind == "retained" and by == job["id"]):
                gone |= records
        if again := (shown & gone).bit_count():
            yield Violation("retained", f"job {job['id']} was shown {again} forgotten records")
    for job_id, job in now.jobs.items():
        if job["status"] == "published" and job_id not in traced:
            yield Violation("retained", f"job {job_id} left no trace of what it was shown")


def _forgotten_by(manifest: Mapping[bytes, str | None], digests: list[bytes]) -> dict[str, int]:
    """Return the records that each job forgot, as the bits of a number."""
    found: dict[str, int] = {}
    for index, digest in enumerate(digests):
        job_id = manifest.get(digest)
        if job_id is not None:
            found[job_id] = found.get(job_id, 0) | 1 << index
    return found


def _lines(folder: Path) -> Iterator[tuple[int, str, int]]:
    for path in sorted(folder.iterdir()):
        # The last line of a process that was killed may be cut short.
        for line in path.read_text().split("\n")[:-1]:
            seed, kind, shown = line.split()
            yield int(seed), kind, int(shown, 16)
