"""What a repetition would need and is gone is named, word for word."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from app.db import now, transaction
from app.tables import (
    JobRecord,
)
from tests.workers.rerun.repeating import (
    changed,
    outcome,
    parent,
    purge,
    record,
    recorded,
    store,
)


def test_what_a_repetition_would_need_and_is_gone_is_named(
    judged: UUID,
    packages: Path,
) -> None:
    job_id = judged
    with changed(JobRecord, JobRecord.job_id == job_id, losses=None):
        assert outcome(job_id) == (
            "not_possible",
            "The numbers about single samples are gone that the job was given.",
        )
    environment = record(job_id).inputs["environment"]
    with recorded(job_id, environment={**environment, "device": "cuda"}):
        assert "ran on cuda, which this machine lacks" in outcome(job_id)[1]
    signature = store().signature_path_of(parent(job_id).digest)
    content = signature.read_bytes()
    signature.unlink()
    found, why = outcome(job_id)
    assert (found, "has no signature" in why) == ("not_possible", True)
    signature.write_bytes(content)
    points = packages / "recipes_of_tests-1.dist-info" / "entry_points.txt"
    text = points.read_text()
    points.write_text(text.replace("plain", "other"))
    found, why = outcome(job_id)
    assert (found, "no recipe named 'plain' is installed" in why) == ("not_possible", True)
    points.write_text(text)
    assert outcome(job_id) == ("reproduced", "")

    purge(parent(job_id))
    assert outcome(job_id) == (
        "not_possible",
        f"The parent, version 1, was purged on {now():%Y-%m-%d}: what the job started from is "
        "gone for good.",
    )


def test_a_job_is_not_repeated_on_other_data_or_without_a_record(
    judged: UUID, reread: Callable[[str, str], None]
) -> None:
    key = os.environ["LETHE_ID_KEY"]
    reread("LETHE_ID_KEY", "another-" + "c" * 32)
    found, why = outcome(judged)
    assert (found, "LETHE_ID_KEY is" in why) == ("not_possible", True)
    reread("LETHE_ID_KEY", key)
    assert outcome(judged) == ("reproduced", "")
    with transaction() as session:
        session.delete(session.get_one(JobRecord, judged))
    assert outcome(judged) == (
        "not_possible",
        "The job has no record: it was run by an earlier release.",
    )
