"""Is every accepted request kept, and kept once? (Invariants 1 and 2, and what cancelling says.)"""

from collections import Counter
from collections.abc import Iterator, Mapping

from app.privacy import digest_sample_id
from tests.chaos.checker.snapshot import Entry, Row, Snapshot, Violation
from tests.chaos.history import History

KEPT = frozenset({"completed", "nothing_found", "cancelled"})
DONE = frozenset({"completed", "cancelled"})


def lost(now: Snapshot, history: History, id_key: bytes) -> Iterator[Violation]:
    """Yield what was accepted and is not there, not finished, or finished without its effect."""
    for key, request_id in history.accepted.items():
        asked = history.asked[key]
        if request_id not in now.requests:
            yield Violation("lost", f"request {request_id} was accepted and is gone")
        elif now.samples.get(request_id) != frozenset(
            digest_sample_id(id_key, sample_id) for sample_id in asked.sample_ids
        ):
            yield Violation("lost", f"request {request_id} asks for other samples than it was sent")
    has: dict[str, set[str]] = {}
    for erasure in now.erasures.values():
        has.setdefault(erasure["request_id"], set()).add(erasure["model_id"])
    for request_id, request in now.requests.items():
        if request["status"] not in KEPT:
            yield Violation("lost", f"request {request_id} ends as {request['status']}")
        yield from _without_erasure(now, request_id, request, has.get(request_id, set()))
    made = {v["job_id"]: v["number"] for v in now.versions.values() if v["job_id"] is not None}
    for erasure_id, erasure in now.erasures.items():
        if erasure["status"] not in DONE:
            job = now.jobs.get(erasure["job_id"] or "")
            where = "in no job" if job is None else f"in job {job['id']}, {job['status']}"
            yield Violation("lost", f"erasure {erasure_id} ends as {erasure['status']}, {where}")
        elif erasure["status"] == "completed":
            yield from _unforgotten(now, erasure_id, erasure, made)
    for job_id, job in now.jobs.items():
        if job["status"] in ("queued", "running"):
            yield Violation("lost", f"job {job_id} is {job['status']} for ever")
    yield from _wrong_sums(now)
    yield from _untrue_withdrawals(now, history)


def doubled(now: Snapshot, history: History) -> Iterator[Violation]:
    """Yield what was done twice, by a claim that was void, or though nobody asked for it."""
    for kind, what in history.contradictions:
        yield Violation(kind, what)
    known = set(history.accepted.values())
    for request_id in now.requests.keys() - known:
        yield Violation("doubled", f"request {request_id} belongs to no key that was sent")
    completions = Counter(e.subject for e in now.entries if e.event == "erasure.completed")
    cancellations = {e.subject for e in now.entries if e.event == "erasure.cancelled"}
    for erasure_id, number in completions.items():
        if number > 1:
            yield Violation("doubled", f"erasure {erasure_id} was completed {number} times")
        if erasure_id in cancellations:
            yield Violation("doubled", f"erasure {erasure_id} was cancelled and completed")
    versions = Counter(v["job_id"] for v in now.versions.values() if v["job_id"] is not None)
    for job_id, number in versions.items():
        if number > 1:
            yield Violation("doubled", f"job {job_id} published {number} versions")
    events = now.events()
    for job_id in now.jobs:
        yield from _void_claims(job_id, events.get(job_id, []))
    yield from _forgotten_unasked(now)


def _without_erasure(
    now: Snapshot, request_id: str, request: Row, found: set[str]
) -> Iterator[Violation]:
    for model_id, model in now.models.items():
        held = now.samples.get(request_id, frozenset()) & now.manifests.get(model_id, {}).keys()
        meant = request["model_id"] in (None, model_id) and model["status"] == "ready"
        # A model that was still being checked when the request was withdrawn is not asked any more.
        withdrawn = request["cancelled_at"] is not None
        checked_later = meant and model["checked_at"] > request["received_at"]
        expected = meant and held and model["created_at"] <= request["received_at"]
        if expected and model_id not in found and not (withdrawn and checked_later):
            yield Violation("lost", f"request {request_id} has no erasure for model {model_id}")
        if model_id in found and not (meant and held):
            yield Violation("lost", f"request {request_id} has an erasure for {model_id} unasked")


def _wrong_sums(now: Snapshot) -> Iterator[Violation]:
    statuses: dict[str, set[str]] = {}
    for erasure in now.erasures.values():
        statuses.setdefault(erasure["request_id"], set()).add(erasure["status"])
    for request_id, request in now.requests.items():
        of = statuses.get(request_id, set())
        # Some completed and the others cancelled: completed, as far as it was not withdrawn.
        whole = "completed" if "completed" in of else "cancelled" if of else None
        if of <= DONE and whole is not None and request["status"] != whole:
            yield Violation("lost", f"request {request_id} is {request['status']}, of {sorted(of)}")


def _unforgotten(
    now: Snapshot, erasure_id: str, erasure: Row, made: Mapping[str, int]
) -> Iterator[Violation]:
    manifest = now.manifests[erasure["model_id"]]
    version = now.versions.get(erasure["version_id"] or "")
    if version is None or version["model_id"] != erasure["model_id"]:
        yield Violation("lost", f"erasure {erasure_id} is completed by no version of its model")
        return
    for digest in now.samples.get(erasure["request_id"], frozenset()) & manifest.keys():
        by = made.get(manifest[digest] or "")
        if by is None or by > version["number"]:
            yield Violation(
                "lost", f"erasure {erasure_id} is completed, and a sample of it is not forgotten"
            )


def _untrue_withdrawals(now: Snapshot, history: History) -> Iterator[Violation]:
    of = {
        (e["request_id"], now.models[e["model_id"]]["name"]): e["status"]
        for e in now.erasures.values()
    }
    for told, expected in ((history.withdrawn, "cancelled"), (history.too_late, "completed")):
        for request_id, models in told.items():
            for model in models:
                if of.get((request_id, model)) != expected:
                    yield Violation(
                        "lost",
                        f"request {request_id}: {model} was answered to be {expected}, "
                        f"and is {of.get((request_id, model))}",
                    )
    for (request_id, model), status in of.items():
        if status == "cancelled" and request_id not in history.withdrawals:
            yield Violation("lost", f"request {request_id} is cancelled for {model} by nobody")


def _void_claims(job_id: str, events: list[Entry]) -> Iterator[Violation]:
    fences = [entry.facts["fence"] for entry in events if entry.event == "job.running"]
    if fences != list(range(1, len(fences) + 1)):
        yield Violation("doubled", f"job {job_id} was claimed under the fences {fences}")
    for entry in events:
        # What ended a job by its claim, and not by a lease that ran out.
        if entry.event != "job.running" and entry.facts.get("fence") not in (None, *fences[-1:]):
            yield Violation(
                "doubled",
                f"job {job_id} ended under fence {entry.facts['fence']}, "
                f"and was claimed under {fences}",
            )


def _forgotten_unasked(now: Snapshot) -> Iterator[Violation]:
    asked: dict[str, set[bytes]] = {}
    for erasure in now.erasures.values():
        if erasure["job_id"] is not None and erasure["status"] == "completed":
            samples = now.samples.get(erasure["request_id"], frozenset())
            asked.setdefault(erasure["job_id"], set()).update(samples)
    for model_id, manifest in now.manifests.items():
        for job_id in {job for job in manifest.values() if job is not None}:
            forgotten = {digest for digest, job in manifest.items() if job == job_id}
            unasked = forgotten - asked.get(job_id, set())
            if unasked:
                yield Violation(
                    "doubled",
                    f"job {job_id} forgot {len(unasked)} samples in model {model_id} "
                    "for which no completed erasure of it asks",
                )
