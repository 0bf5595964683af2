# ruff: noqa: S608  # the statements are this file's own
"""The checker finds nothing where nothing is wrong, and each kind of wrong that is planted."""

from collections.abc import Callable
from dataclasses import replace

from tests.chaos.checker import bytes_written, chains, promises
from tests.chaos.checker.log import log, replayed
from tests.chaos.checker.snapshot import Violation, read
from tests.chaos.checker.traces import retained
from tests.chaos.conftest import Life

Check = Callable[[Life], list[Violation]]

FIRST_REQUEST = "(SELECT id FROM deletion_requests ORDER BY received_at LIMIT 1)"
FIRST_JOB = "(SELECT id FROM unlearning_jobs ORDER BY created_at LIMIT 1)"
FIRST_VERSION = "(SELECT id FROM model_versions WHERE number = 1)"
COMPLETED = "(SELECT id FROM erasures WHERE status = 'completed' LIMIT 1)"
CANCELLED = "(SELECT id FROM erasures WHERE status = 'cancelled')"


def lost(life: Life) -> list[Violation]:
    return list(promises.lost(read(life.connection), life.history, life.id_key))


def doubled(life: Life) -> list[Violation]:
    return list(promises.doubled(read(life.connection), life.history))


def forks(life: Life) -> list[Violation]:
    return list(chains.forks(read(life.connection)))


def unverified(life: Life) -> list[Violation]:
    return list(chains.unverified(read(life.connection)))


def logged(life: Life) -> list[Violation]:
    return list(log(read(life.connection), life.history))


def kept_out(life: Life) -> list[Violation]:
    return list(retained(read(life.connection), life.traces, lambda _: life.digests))


def stored(life: Life) -> list[Violation]:
    return list(bytes_written.artifacts(read(life.connection), life.artifacts))


def entry(event: str, subject: str, facts: str = "{}") -> str:
    """Return the statement that writes an entry which the product did not write."""
    return (
        "INSERT INTO audit_entries (event, subject, payload) "
        f"VALUES ('{event}', {subject}, '{{\"facts\": {facts}}}')"
    )


# What is planted, and words of what is found.
PLANTS: dict[Check, list[tuple[str, str]]] = {
    lost: [
        ("UPDATE deletion_requests SET status = 'in_progress'", "ends as in_progress"),
        ("UPDATE deletion_requests SET status = 'needs_attention'", "ends as needs_attention"),
        ("UPDATE deletion_requests SET status = 'nothing_found'", "is nothing_found, of"),
        ("DELETE FROM erasures WHERE status = 'completed'", "has no erasure for model"),
        (f"DELETE FROM requested_samples WHERE request_id = {FIRST_REQUEST}", "other samples"),
        ("UPDATE erasures SET status = 'scheduled', version_id = NULL", "as scheduled, in job"),
        ("UPDATE erasures SET status = 'pending', version_id = NULL", "ends as pending, in job"),
        ("UPDATE manifest_entries SET forgotten_by_job_id = NULL", "of it is not forgotten"),
        (
            f"UPDATE erasures SET version_id = {FIRST_VERSION} WHERE status = 'completed'",
            "of it is not forgotten",
        ),
        (f"UPDATE unlearning_jobs SET status = 'queued' WHERE id = {FIRST_JOB}", "for ever"),
        (
            f"UPDATE erasures SET status = 'completed', version_id = {FIRST_VERSION} "
            f"WHERE id = {CANCELLED}",
            "was answered to be cancelled",
        ),
        (
            "UPDATE erasures SET status = 'cancelled', version_id = NULL",
            "is cancelled for digits by nobody",
        ),
        (
            "UPDATE deletion_requests SET model_id = (SELECT id FROM registered_models), "
            "received_at = received_at - interval '1 day'; "
            "UPDATE registered_models SET status = 'rejected'",
            "unasked",
        ),
    ],
    doubled: [
        (entry("erasure.completed", COMPLETED), "was completed 2 times"),
        (entry("erasure.completed", CANCELLED), "was cancelled and completed"),
        (entry("job.published", FIRST_JOB, '{"fence": 1}'), "ended under fence 1"),
        (entry("job.running", FIRST_JOB, '{"fence": 2}'), "under the fences [1, 2, 2]"),
        (entry("job.running", FIRST_JOB, '{"fence": 4}'), "under the fences [1, 2, 4]"),
        (f"UPDATE manifest_entries SET forgotten_by_job_id = {FIRST_JOB}", "no completed erasure"),
        ("UPDATE erasures SET job_id = NULL", "no completed erasure"),
    ],
    forks: [
        (f"UPDATE registered_models SET current_version_id = {FIRST_VERSION}", "the model names"),
        ("UPDATE model_versions SET number = 5 WHERE number = 3", "numbers [1, 2, 5]"),
        ("UPDATE model_versions SET parent_id = id WHERE number = 3", "does not follow"),
        ("UPDATE model_versions SET status = 'withdrawn'", "current are []"),
        ("UPDATE model_versions SET digest = 'sha256:0'", "the log has other versions"),
        ("UPDATE model_versions SET job_id = NULL", "is published without a version"),
        ("UPDATE unlearning_jobs SET status = 'failed'", "is published without a version"),
    ],
    unverified: [
        ("UPDATE rungs SET outcome = 'failed'", "was published as failed"),
        ("UPDATE rungs SET outcome = 'inconclusive'", "was published as inconclusive"),
        ("UPDATE rungs SET attempt = 7", "was published as passed"),
        ("UPDATE model_versions SET verdict = 'inconclusive'", "was published as passed"),
        ("DELETE FROM rungs", "was published as None"),
    ],
    logged: [
        ("UPDATE erasures SET status = 'rejected', version_id = NULL", "logged as erasure."),
        ("UPDATE unlearning_jobs SET status = 'failed'", "logged as job.published"),
        ("UPDATE registered_models SET status = 'rejected'", "logged as model.ready"),
        ("UPDATE deletion_requests SET status = 'pending'", "logged as deletion_request."),
        ("UPDATE model_versions SET status = 'purged'", "logged as version."),
        (entry("job.queued", FIRST_JOB), "logged as job.queued"),
    ],
}


def test_nothing_is_found_in_a_life_without_faults(life: Life) -> None:
    statuses = {row["status"] for row in read(life.connection).requests.values()}
    assert statuses == {"completed", "cancelled", "nothing_found"}
    checks: tuple[Check, ...] = (*PLANTS, kept_out, stored)
    assert [violation for check in checks for violation in check(life)] == []
    assert list(replayed(life.url.replace("postgresql:", "postgresql+psycopg:"))) == []


def test_each_contradiction_planted_in_the_rows_is_found_by_its_check(life: Life) -> None:
    for check, plants in PLANTS.items():
        for statement, words in plants:
            life.connection.execute(statement)
            found = [violation.what for violation in check(life)]
            assert any(words in what for what in found), (statement, found)
            life.connection.rollback()


def test_what_clients_were_told_and_is_not_so_is_found(life: Life) -> None:
    told = life.history
    elsewhere = "6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"
    gone = replace(told, accepted={**told.accepted, "second": elsewhere})
    assert any("was accepted and is gone" in v.what for v in lost(replace(life, history=gone)))
    nobody = {key: id_ for key, id_ in told.accepted.items() if key != "second"}
    [unasked] = doubled(replace(life, history=replace(told, accepted=nobody)))
    assert "belongs to no key" in unasked.what

    told.accept("first", told.accepted["nobody"])
    assert ["one key gave the requests" in violation.what for violation in doubled(life)] == [True]
    for size in (3, 10**6):
        told.see_head(size, "00" * 32)
    for status in ("completed", "pending", "cancelled", "completed"):
        told.see_status("r", status)
    for status in ("queued", "published", "running"):
        told.see_job_status("j", status)
    found = [violation.what for violation in logged(life)]
    expected = ("size 3 that", "size 1000000 that", "from cancelled to c", "from published to r")
    assert len(found) == len(expected)
    assert all(words in what for words, what in zip(expected, found, strict=True))


def test_a_forgotten_record_that_is_shown_again_is_found(life: Life) -> None:
    [first], [second] = life.connection.execute(
        "SELECT seed FROM unlearning_jobs ORDER BY created_at"
    )
    trace = life.traces / "2"
    # Retained although it is the job's own to forget; trained on although it was forgotten before.
    for seed, kind, shown in ((first, "retained", 0b11111101), (second, "trained", 0b11111110)):
        trace.write_text(f"{seed} {kind} {shown:x}\n")
        assert ["shown 1 forgotten" in violation.what for violation in kept_out(life)] == [True]
    # What a job is there to forget is shown to methods that train on it, but not retained.
    trace.write_text(f"{first} trained {0b11:x}\n")
    assert kept_out(life) == []
    (life.traces / "1").unlink()
    assert ["left no trace" in violation.what for violation in kept_out(life)] == [True]


def test_weights_that_are_missing_or_damaged_are_found(life: Life) -> None:
    missing, damaged, _ = sorted(path for path in life.artifacts.rglob("*") if path.is_file())
    missing.unlink()
    damaged.chmod(0o600)
    damaged.write_bytes(b"something else")
    assert {violation.what for violation in stored(life)} == {
        f"sha256:{missing.name} is not in the store",
        f"the file of sha256:{damaged.name} holds something else",
    }
