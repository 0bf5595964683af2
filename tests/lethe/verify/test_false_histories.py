"""Receipts of a log that lied from the start: each is refused for its own reason."""

from copy import deepcopy

import pytest
import rfc8785

from lethe.verify import NotProven, Reason, verify_receipt
from tests.lethe.verify.names import MODEL, REQUEST, TRUSTED, Json, quoted
from tests.lethe.verify.sealing import Change, delete, set_at
from tests.lethe.verify.story import erasure, in_two_versions, simple


def reason_of(receipt: Json) -> Reason:
    with pytest.raises(NotProven) as refused:
        verify_receipt(rfc8785.dumps(receipt), [TRUSTED])
    assert len(refused.value.detail) < 300
    return refused.value.reason


FALSE_HISTORIES: list[tuple[Change, Reason]] = [
    (set_at("parent_digest", to="sha256:" + "00" * 32), Reason.CHAIN_BROKEN),
    (set_at("parent_digest", to=None), Reason.ENTRY_MALFORMED),
    (set_at("commitment", "parent_root", to="00" * 32), Reason.COMMITMENT_CONTRADICTS),
    (set_at("commitment", "root", to="00" * 32), Reason.COMMITMENT_CONTRADICTS),
    (set_at("commitment", "retained", to=2), Reason.COMMITMENT_CONTRADICTS),
    (set_at("commitment", "removed", to=1), Reason.COMMITMENT_CONTRADICTS),
    (
        lambda facts: facts["commitment"].update(removed=1, retained=2),
        Reason.COMMITMENT_CONTRADICTS,
    ),
    (delete("commitment", "removed"), Reason.ENTRY_MALFORMED),
    (set_at("commitment", "more", to=1), Reason.ENTRY_MALFORMED),
    (set_at("verdict", to="failed"), Reason.ENTRY_MALFORMED),
    (set_at("guarantee", to="certain"), Reason.ENTRY_MALFORMED),
    (set_at("number", to=1), Reason.ENTRY_MALFORMED),
    (set_at("number", to=True), Reason.ENTRY_MALFORMED),
    (set_at("number", to=3), Reason.ENTRIES_MISSING),
    (set_at("model_name", to="faces"), Reason.ENTRIES_CONTRADICT),
    (set_at("id_key_id", to="k-2"), Reason.SAMPLES_CONTRADICT),
]


@pytest.mark.parametrize(("change", "reason"), FALSE_HISTORIES, ids=range(len(FALSE_HISTORIES)))
def test_a_log_that_lies_about_a_version_from_the_start_is_refused(
    change: Change, reason: Reason
) -> None:
    story = simple()[0]
    change(story.made[MODEL][1])
    receipt = story.receipt(story.statement(["a", "z"], [erasure({"a": 2})]))
    assert reason_of(receipt) == reason


ENDS: list[tuple[Change, Reason]] = [
    (set_at("samples", to=3), Reason.SAMPLES_CONTRADICT),
    (set_at("regulation", to="ccpa"), Reason.ENTRIES_CONTRADICT),
    (set_at("received_at", to=quoted(2)), Reason.ENTRIES_CONTRADICT),
    (set_at("received_at", to="2026-11-21T10:00:30"), Reason.ENTRY_MALFORMED),
    (delete("erasures"), Reason.ENTRY_MALFORMED),
    (set_at("erasures", 0, "status", to="cancelled"), Reason.ENTRIES_CONTRADICT),
    (set_at("erasures", 0, "version", to=1), Reason.ENTRIES_CONTRADICT),
    (set_at("erasures", 0, "samples", to=2), Reason.SAMPLES_CONTRADICT),
    (set_at("erasures", 0, "digest", to="sha256:" + "00" * 32), Reason.ENTRIES_CONTRADICT),
    (lambda facts: facts["erasures"].append(facts["erasures"][0]), Reason.ENTRY_MALFORMED),
]


@pytest.mark.parametrize(("change", "reason"), ENDS, ids=range(len(ENDS)))
def test_a_log_that_has_another_end_of_the_request_is_refused(
    change: Change, reason: Reason
) -> None:
    story = simple()[0]
    change(story.entries[-1]["facts"])
    receipt = story.receipt(story.statement(["a", "z"], [erasure({"a": 2})]))
    assert reason_of(receipt) == reason


def test_a_request_whose_arrival_is_not_first_is_refused() -> None:
    story = simple()[0]
    arrival = next(e for e in story.entries if e["event"] == "deletion_request.pending")
    arrival["event"] = "deletion_request.in_progress"
    receipt = story.receipt(story.statement(["a", "z"], [erasure({"a": 2})]))
    assert reason_of(receipt) == Reason.ENTRIES_MISSING


def test_a_version_that_came_before_its_parent_is_refused() -> None:
    story = simple()[0]
    entries = story.entries
    first, second = (i for i, e in enumerate(entries) if e["event"] == "version.current")
    entries[first], entries[second] = entries[second], entries[first]
    receipt = story.receipt(story.statement(["a", "z"], [erasure({"a": 2})]))
    assert reason_of(receipt) == Reason.CHAIN_BROKEN


def test_a_version_that_was_made_twice_is_refused() -> None:
    story = simple()[0]
    twin = deepcopy(next(e for e in story.entries if e["facts"].get("number") == 2))
    twin["facts"]["digest"] = "sha256:" + "00" * 32
    twin["subject"] = str(REQUEST)[:-1] + "9"
    story.entries.append(twin)
    receipt = story.receipt(story.statement(["a", "z"], [erasure({"a": 2})]))
    assert reason_of(receipt) == Reason.CHAIN_BROKEN


def test_a_version_that_forgot_none_of_the_samples_has_no_place() -> None:
    story = in_two_versions()[0]
    statement = story.statement(["a", "b"], [erasure({"a": 2, "b": 3})])
    statement["predicate"]["erasures"] = [erasure({"b": 3})]
    story.entries[-1]["facts"]["erasures"][0]["samples"] = 1
    assert reason_of(story.receipt(statement)) == Reason.ENTRIES_CONTRADICT
