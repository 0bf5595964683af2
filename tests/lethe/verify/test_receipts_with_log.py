"""A receipt beside the whole log: nothing is left out, and nothing changed since."""

import io
import json
from typing import Any
from uuid import UUID

import pytest
import rfc8785

from lethe.verify import NotProven, Reason, verify_receipt
from tests.lethe.verify.names import MODEL, REQUEST, TRUSTED, Json
from tests.lethe.verify.story import Story, simple, version_id


def with_log(receipt: Json, story: Story, *pinned: str) -> Any:
    content = rfc8785.dumps(receipt)
    return verify_receipt(content, [TRUSTED], log=io.BytesIO(story.export()), pinned=pinned)


def refused_with_log(receipt: Json, story: Story, *pinned: str) -> Reason:
    with pytest.raises(NotProven) as refused:
        with_log(receipt, story, *pinned)
    return refused.value.reason


def test_a_receipt_is_held_against_a_log_that_grew_since() -> None:
    story, receipt = simple()
    story.ask(["b"], UUID(int=5))
    story.forget(["b"])
    found = with_log(receipt, story, story.head(2), story.head())
    assert found.log.status[version_id(MODEL, 2)] == "version.withdrawn"


def test_a_log_that_ends_before_the_receipts_head_is_truncated() -> None:
    story, receipt = simple()
    story.entries.pop()
    assert refused_with_log(receipt, story) == Reason.LOG_TRUNCATED


def test_a_receipt_from_another_history_is_a_fork() -> None:
    story, receipt = simple()
    story.entries[0]["at"] = "2026-11-21T23:00:00+00:00"
    assert refused_with_log(receipt, story) == Reason.LOG_FORKED
    grown, receipt = simple()
    kept = grown.head()
    grown.entries[-1]["at"] = "2026-11-21T23:00:00+00:00"
    assert refused_with_log(receipt, grown, kept) == Reason.LOG_FORKED
    other = Story(origin="lethe/another", entries=grown.entries)
    assert refused_with_log(receipt, other) == Reason.OTHER_LOG


def test_a_request_that_moved_on_contradicts_its_receipt() -> None:
    story, receipt = simple()
    story.say("receipt.looked_at", REQUEST, {})
    assert with_log(receipt, story)
    story.say("deletion_request.in_progress", REQUEST, {})
    assert refused_with_log(receipt, story) == Reason.LOG_CONTRADICTS


def test_an_entry_that_the_receipt_leaves_out_is_found_in_the_log() -> None:
    story, receipt = simple()
    entries = receipt["log"]["entries"]
    events = [json.loads(each["entry"])["event"] for each in entries]
    del entries[events.index("deletion_request.in_progress")]
    assert verify_receipt(rfc8785.dumps(receipt), [TRUSTED])
    assert refused_with_log(receipt, story) == Reason.ENTRIES_MISSING


def test_a_chain_that_breaks_elsewhere_in_the_log_is_told_beside_a_receipt() -> None:
    story, receipt = simple()
    story.say("version.withdrawn", UUID(int=9), {})
    assert refused_with_log(receipt, story) == Reason.LOG_CONTRADICTS
