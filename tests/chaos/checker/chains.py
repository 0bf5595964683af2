"""Is each model's history one chain of verified versions? (Invariants 3, 4 and 9.)"""

from collections.abc import Iterator

from tests.chaos.checker.snapshot import Row, Snapshot, Violation


def forks(now: Snapshot) -> Iterator[Violation]:
    """Yield where a model's versions, its current one, its jobs and the log do not agree."""
    for model_id, model in now.models.items():
        chain = sorted(
            (v for v in now.versions.values() if v["model_id"] == model_id),
            key=lambda version: version["number"],
        )
        yield from _breaks(model_id, model, chain)
        logged = [
            (entry.facts["number"], entry.facts["digest"])
            for entry in now.entries
            if entry.event == "version.current" and entry.facts["model"] == model_id
        ]
        if logged != [(version["number"], version["digest"]) for version in chain]:
            yield Violation("forks", f"model {model_id}: the log has other versions: {logged}")
    published = {j for j, job in now.jobs.items() if job["status"] == "published"}
    made = {v["job_id"] for v in now.versions.values() if v["job_id"] is not None}
    for job_id in published ^ made:
        yield Violation("forks", f"job {job_id} is published without a version, or has one without")


def unverified(now: Snapshot) -> Iterator[Violation]:
    """Yield published versions whose last rung did not pass."""
    last: dict[str, Row] = {}
    for rung in now.rungs:  # in the order in which they were climbed
        last[rung["job_id"]] = rung
    for version_id, version in now.versions.items():
        job = now.jobs.get(version["job_id"] or "")
        if job is None:
            continue
        allowed = {"passed"}
        if job["policy"]["verdicts"]["inconclusive"] == "publish":
            allowed.add("inconclusive")
        newest = last.get(job["id"])
        outcome = None if newest is None else newest["outcome"]
        # Another attempt's rungs say nothing of these weights.
        stale = newest is not None and newest["attempt"] != job["attempts"]
        if outcome not in allowed or stale or version["verdict"] != outcome:
            yield Violation("unverified", f"version {version_id} was published as {outcome}")


def _breaks(model_id: str, model: Row, chain: list[Row]) -> Iterator[Violation]:
    if [version["number"] for version in chain] != list(range(1, len(chain) + 1)):
        yield Violation("forks", f"model {model_id}: numbers {[v['number'] for v in chain]}")
    ids = [None, *(version["id"] for version in chain)]
    for before, after in zip(ids, chain, strict=False):
        if after["parent_id"] != before:
            yield Violation("forks", f"version {after['id']} does not follow its predecessor")
    current = [version["id"] for version in chain if version["status"] == "current"]
    newest = [version["id"] for version in chain[-1:]]
    if current != newest or [model["current_version_id"]] != (newest or [None]):
        yield Violation(
            "forks",
            f"model {model_id}: current are {current}, the newest is {newest}, "
            f"and the model names {model['current_version_id']}",
        )
