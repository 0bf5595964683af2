"""Hold what a receipt states about a request against the log entries that it quotes."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from lethe.verify.commitment import samples_commitment
from lethe.verify.entries import Entry
from lethe.verify.lineage import Step
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.request_entries import (
    ARRIVED,
    DECIDED,
    MOVED,
    Arrival,
    ErasureOutcome,
    Outcome,
    read_arrival,
    read_decision,
    read_outcome,
)
from lethe.verify.statement import Erasure, Request, Statement


def check_request(request: Request, about: Sequence[Entry]) -> tuple[Arrival, Outcome]:
    """Return what the log says of a request, in its first and its last entry about it.

    Raises:
        NotProven: entries are missing, or say something else than the statement.

    """
    if not about or about[0].event != ARRIVED:
        raise NotProven(Reason.ENTRIES_MISSING, "no entry of the request's arrival")
    last = last_word(about)
    if last.event != f"{MOVED}{request.status}":
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log's last word is another status")
    arrival, outcome = read_arrival(about[0]), read_outcome(last)
    if {arrival.regulation, outcome.regulation} != {request.regulation}:
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log names another regulation")
    if (outcome.received_at, last.at) != (request.received_at, request.finished_at):
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has other times of begin and end")
    if request.decisions != tuple(
        read_decision(entry) for entry in about if entry.event.startswith(DECIDED)
    ):
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has other decisions")
    _check_deadline(request, arrival, outcome)
    _check_rejection(request, outcome)
    _check_samples(request, arrival, outcome)
    return arrival, outcome


def last_word(about: Sequence[Entry]) -> Entry:
    """Return the entry that says where a request stands; a decision that moves nothing may follow.

    The first entry is that of the request's arrival, so that there is one.
    """
    return next(entry for entry in reversed(about) if entry.event.startswith(MOVED))


def check_erasures(statement: Statement, outcome: Outcome, steps: Sequence[Step]) -> None:
    """Hold what became of the request in each model against log, lineage and samples.

    Raises:
        NotProven: they differ, or a sample that was forgotten is not among those that went.

    """
    if not _adds_up(statement.request.status, {each.status for each in statement.erasures}):
        raise NotProven(Reason.STATUS_CONTRADICTS, "the erasures do not add up to the status")
    if {erasure.model for erasure in statement.erasures} != outcome.erasures.keys():
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log names other models")
    samples = frozenset(statement.request.samples)
    by_place = {(step.version.model, step.version.number): step for step in steps}
    for erasure in statement.erasures:
        _check_outcome(erasure, outcome.erasures[erasure.model], by_place)
        _check_forgotten(erasure, samples, by_place)
    told = {
        (erasure.model, each.version)
        for erasure in statement.erasures
        for each in erasure.forgotten
    }
    if told != by_place.keys():
        raise NotProven(Reason.ENTRIES_CONTRADICT, "a version forgot none of the samples")
    for step in steps:
        if step.version.id_key_id not in (None, statement.request.id_key_id):
            raise NotProven(
                Reason.SAMPLES_CONTRADICT, f"{step.version.label} has digests of another key"
            )


def check_subjects(statement: Statement, last: Entry, steps: Sequence[Step]) -> None:
    """Hold the statement's subjects against the versions, or against the request's last entry.

    Raises:
        NotProven: they differ.

    """
    names = {erasure.model: erasure.name for erasure in statement.erasures}
    wanted = [
        (
            f"models/{names[step.version.model]}/versions/{step.version.number}",
            bytes.fromhex(step.version.digest),
        )
        for step in steps
    ] or [(f"requests/{statement.request.id}", last.hash)]
    if [(each.name, each.sha256) for each in statement.subjects] != wanted:
        raise NotProven(Reason.SUBJECT_CONTRADICTS, "the subjects are not what was made")


def _check_deadline(request: Request, arrival: Arrival, outcome: Outcome) -> None:
    if outcome.knows_due_at and outcome.due_at != request.due_at:
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has another deadline at the end")
    if not arrival.knows_due_at:
        return
    due_at, stands_still = arrival.due_at, False
    for decision in request.decisions:
        due_at = decision.due_at or due_at
        stands_still = decision.action == "pause" or (stands_still and decision.action != "resume")
    if due_at == request.due_at:
        return
    # A clock that stood still goes on with the request's end, and its deadline moves by that time.
    if not stands_still or due_at is None or request.due_at is None or due_at > request.due_at:
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has another deadline")


def _check_rejection(request: Request, outcome: Outcome) -> None:
    last = next((d for d in reversed(request.decisions) if d.action in ("reject", "reopen")), None)
    rejected = last is not None and last.action == "reject"
    if request.status == "rejected" and not rejected:
        raise NotProven(Reason.ENTRIES_MISSING, "no entry says that it was rejected, and why")
    reason = last.reason if last is not None and rejected else None
    if outcome.reason != reason and (request.status == "rejected" or outcome.reason is not None):
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has another reason")


def _check_samples(request: Request, arrival: Arrival, outcome: Outcome) -> None:
    if {arrival.samples, outcome.samples} != {len(request.samples)}:
        raise NotProven(Reason.SAMPLES_CONTRADICT, "the log counts other samples")
    opened = None
    if request.salt is not None:
        opened = samples_commitment(request.salt, request.samples)
    if arrival.commitment != opened:
        raise NotProven(Reason.SAMPLES_CONTRADICT, "the log committed to other samples")


def _adds_up(status: str, erasures: set[str]) -> bool:
    if status == "nothing_found":
        return not erasures
    if status in ("cancelled", "rejected"):
        return erasures <= {status}
    return "completed" in erasures


def _check_outcome(
    erasure: Erasure, outcome: ErasureOutcome, by_place: Mapping[tuple[UUID, int], Step]
) -> None:
    if (erasure.status, erasure.version) != (outcome.status, outcome.version):
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has another outcome for a model")
    if erasure.status == "completed" and len(erasure.forgotten) != outcome.samples:
        raise NotProven(
            Reason.SAMPLES_CONTRADICT, "not all samples that the model held are forgotten"
        )
    step = None if erasure.version is None else by_place.get((erasure.model, erasure.version))
    if step is not None and outcome.digest != step.version.digest:
        raise NotProven(Reason.ENTRIES_CONTRADICT, f"{step.version.label} has two digests")


def _check_forgotten(
    erasure: Erasure, samples: frozenset[bytes], by_place: Mapping[tuple[UUID, int], Step]
) -> None:
    for each in erasure.forgotten:
        if each.sample not in samples:
            raise NotProven(Reason.SAMPLES_CONTRADICT, "a forgotten sample was not asked for")
        step = by_place.get((erasure.model, each.version))
        if step is None:
            raise NotProven(
                Reason.ENTRIES_MISSING, f"no entry of version {each.version}, which forgot a sample"
            )
        if step.version.model_name not in (None, erasure.name):
            raise NotProven(Reason.ENTRIES_CONTRADICT, "the log has another name for a model")
        if not step.forgot(each.sample):
            raise NotProven(
                Reason.NOT_FORGOTTEN,
                f"sample {each.sample.hex()} is not among those that went with "
                f"version {each.version}",
            )
