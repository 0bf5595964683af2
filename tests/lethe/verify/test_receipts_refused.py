"""Receipts that are signed by the log's own key, and lie: each is refused for its own reason."""

import json
from copy import deepcopy
from typing import Any

import pytest
import rfc8785

from lethe.verify import NotProven, Reason, verify_receipt
from tests.lethe.verify.names import MODEL, TRUSTED, Json, digest, utc
from tests.lethe.verify.sealing import Change, delete, restated, set_at
from tests.lethe.verify.story import Story, erasure, simple


def reason_of(receipt: Json) -> Reason:
    with pytest.raises(NotProven) as refused:
        verify_receipt(rfc8785.dumps(receipt), [TRUSTED])
    assert len(refused.value.detail) < 300
    return refused.value.reason


def request(name: str, to: Any) -> Change:
    return set_at("predicate", "request", name, to=to)


def predicate(*path: str | int, to: Any) -> Change:
    return set_at("predicate", *path, to=to)


A, Z, B = (digest(name).hex() for name in "azb")

MALFORMED = [
    set_at("more", to=1),
    delete("subject"),
    set_at("subject", to={}),
    set_at("subject", 0, "digest", to={"sha512": "00"}),
    set_at("subject", 0, "digest", "sha256", to="AB" * 32),
    set_at("subject", 0, "name", to=""),
    predicate("more", to=None),
    predicate("issuer", to={"log": "l"}),
    predicate("issued_at", to="2026-11-21T11:41:00+00:00"),
    predicate("issued_at", to="2026-11-21 11:41:00Z"),
    predicate("issued_at", to="2026-13-21T11:41:00Z"),
    predicate("issued_at", to=1795255200),
    predicate("erasures", to=None),
    predicate("erasures", 0, "more", to=1),
    predicate("erasures", 0, "model", to=str(MODEL).upper()),
    predicate("erasures", 0, "status", to="pending"),
    predicate("erasures", 0, "status", to=["completed"]),
    predicate("erasures", 0, "version", to=None),
    predicate("erasures", 0, "version", to=True),
    predicate("erasures", 0, "version", to=2.5),
    predicate("erasures", 0, "forgotten", to=[]),
    predicate("erasures", 0, "forgotten", to=[{"sample": A, "version": 2}] * 2),
    predicate("erasures", 0, "forgotten", to=[{"sample": A, "version": 3}]),
    predicate("erasures", 0, "forgotten", to=[{"sample": A, "version": 1}]),
    predicate("erasures", to=[erasure({"a": 2})] * 2),
    predicate("versions", to=[1]),
    predicate("not_shown", to=[1]),
    request("more", 1),
    request("id", "1"),
    request("status", "pending"),
    request("samples", []),
    request("samples", [A, A]),
    request("samples", sorted([A, Z], reverse=True)),
    request("samples", [A[:-2]]),
    request("salt", "00"),
    request("salt", 0),
]


@pytest.mark.parametrize("change", MALFORMED, ids=range(len(MALFORMED)))
def test_a_statement_of_another_shape_is_refused(change: Change) -> None:
    assert reason_of(restated(simple()[1], change)) == Reason.STATEMENT_MALFORMED


LIES = [
    (set_at("_type", to="https://in-toto.io/Statement/v0.1"), Reason.NOT_A_RECEIPT),
    (set_at("predicateType", to="https://slsa.dev/provenance/v1"), Reason.NOT_A_RECEIPT),
    (predicate("issuer", "log", to="lethe/another"), Reason.OTHER_LOG),
    (request("id", "6a3f0d8e-0000-4000-8000-000000000002"), Reason.ENTRIES_MISSING),
    (request("status", "cancelled"), Reason.ENTRIES_CONTRADICT),
    (request("regulation", "ccpa"), Reason.ENTRIES_CONTRADICT),
    (request("received_at", utc(1)), Reason.ENTRIES_CONTRADICT),
    (request("due_at", utc(61)), Reason.ENTRIES_CONTRADICT),
    (request("due_at", None), Reason.ENTRIES_CONTRADICT),
    (request("finished_at", utc(4)), Reason.ENTRIES_CONTRADICT),
    (request("salt", "00" * 32), Reason.SAMPLES_CONTRADICT),
    (request("salt", None), Reason.SAMPLES_CONTRADICT),
    (request("samples", sorted([A, B])), Reason.SAMPLES_CONTRADICT),
    (request("samples", [A]), Reason.SAMPLES_CONTRADICT),
    (request("id_key_id", "k-2"), Reason.SAMPLES_CONTRADICT),
    (predicate("erasures", to=[]), Reason.STATUS_CONTRADICTS),
    (predicate("erasures", 0, "name", to="faces"), Reason.ENTRIES_CONTRADICT),
    (predicate("erasures", 0, "version", to=3), Reason.ENTRIES_CONTRADICT),
    (
        predicate("erasures", 0, "model", to="6a3f0d8e-0000-4000-8000-00000000000b"),
        Reason.ENTRIES_CONTRADICT,
    ),
    (predicate("erasures", 0, "forgotten", 0, "sample", to=B), Reason.SAMPLES_CONTRADICT),
    (predicate("erasures", 0, "forgotten", 0, "sample", to=Z), Reason.NOT_FORGOTTEN),
    (
        predicate("erasures", 0, "forgotten", to=[{"sample": s, "version": 2} for s in (A, Z)]),
        Reason.SAMPLES_CONTRADICT,
    ),
    (set_at("subject", 0, "digest", "sha256", to="00" * 32), Reason.SUBJECT_CONTRADICTS),
    (set_at("subject", 0, "name", to="models/digits/versions/3"), Reason.SUBJECT_CONTRADICTS),
    (set_at("subject", to=[]), Reason.SUBJECT_CONTRADICTS),
    (predicate("versions", 0, "digest", to="sha256:" + "00" * 32), Reason.ENTRIES_MISSING),
    (predicate("versions", 0, "guarantee", to="exact"), Reason.ENTRIES_MISSING),
    # In Python, true is 1, and so is this number.
    (predicate("versions", 0, "commitment", "retained", to=True), Reason.ENTRIES_MISSING),
]


@pytest.mark.parametrize(("change", "reason"), LIES, ids=range(len(LIES)))
def test_a_statement_that_contradicts_the_log_is_refused(change: Change, reason: Reason) -> None:
    assert reason_of(restated(simple()[1], change)) == reason


def test_a_receipt_for_another_version_is_refused() -> None:
    story, receipt = simple()
    story.forget(["b"])
    facts = story.made[MODEL][2]
    other = restated(receipt, predicate("versions", to=[facts]))
    assert reason_of(other) == Reason.ENTRIES_MISSING
    # With the log entries and the proof of that version, too.
    whole = story.receipt(story.statement(["a", "z"], [erasure({"a": 3})]))
    assert reason_of(whole) == Reason.ENTRIES_CONTRADICT


def test_no_sample_is_forgotten_that_is_not_among_those_that_went() -> None:
    story = Story()
    story.register(["a", "b", "c"])
    story.ask(["a"])
    story.forget(["b"])
    erasures = [erasure({"a": 2})]
    story.finish(["a"], erasures)
    assert reason_of(story.receipt(story.statement(["a"], erasures))) == Reason.NOT_FORGOTTEN


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_at("format", to="lethe-receipt-v2"), Reason.UNKNOWN_FORMAT),
        (delete("format"), Reason.UNKNOWN_FORMAT),
        (set_at("more", to=1), Reason.RECEIPT_MALFORMED),
        (delete("transitions"), Reason.RECEIPT_MALFORMED),
        (set_at("transitions", to={}), Reason.RECEIPT_MALFORMED),
        (set_at("transitions", 0, "more", to=1), Reason.RECEIPT_MALFORMED),
        (set_at("transitions", 0, "digest", to="00" * 32), Reason.RECEIPT_MALFORMED),
        (
            set_at("transitions", 0, "digest", to="sha256:" + "00" * 32),
            Reason.COMMITMENT_CONTRADICTS,
        ),
        (set_at("transitions", to=[]), Reason.COMMITMENT_CONTRADICTS),
        (set_at("transitions", 0, "proof", "siblings", to=""), Reason.COMMITMENT_CONTRADICTS),
        (set_at("log", "more", to=1), Reason.RECEIPT_MALFORMED),
        (set_at("log", "checkpoint", to=1), Reason.RECEIPT_MALFORMED),
        (set_at("log", "checkpoint", to="no note"), Reason.HEAD_MALFORMED),
        (set_at("log", "entries", to=[]), Reason.ENTRIES_MISSING),
        (set_at("log", "entries", 0, "more", to=1), Reason.RECEIPT_MALFORMED),
        (set_at("log", "entries", 0, "position", to=False), Reason.RECEIPT_MALFORMED),
        (set_at("log", "entries", 0, "position", to=6), Reason.NOT_IN_THE_LOG),
        (set_at("log", "entries", 0, "path", 0, to="00" * 32), Reason.NOT_IN_THE_LOG),
        (set_at("log", "entries", 0, "path", 0, to="0"), Reason.RECEIPT_MALFORMED),
        (set_at("log", "entries", 0, "entry", to="{}"), Reason.ENTRY_MALFORMED),
        (lambda r: r["log"]["entries"].reverse(), Reason.RECEIPT_MALFORMED),
        (lambda r: r["log"]["entries"].append(r["log"]["entries"][-1]), Reason.RECEIPT_MALFORMED),
        (lambda r: r["transitions"].append(r["transitions"][0]), Reason.COMMITMENT_CONTRADICTS),
    ],
    ids=range(23),
)
def test_a_receipt_whose_unsigned_parts_were_changed_is_refused(
    change: Change, reason: Reason
) -> None:
    receipt = deepcopy(simple()[1])
    change(receipt)
    assert reason_of(receipt) == reason


@pytest.mark.parametrize("position", range(5))
def test_each_quoted_entry_is_needed(position: int) -> None:
    receipt = deepcopy(simple()[1])
    left_out = receipt["log"]["entries"].pop(position)
    event = json.loads(left_out["entry"])["event"]
    if event == "deletion_request.in_progress":
        # Without the log nobody can know of it; the next test has the log.
        assert verify_receipt(rfc8785.dumps(receipt), [TRUSTED])
    else:
        wanted = {
            "version.current": Reason.ENTRIES_MISSING,
            "deletion_request.pending": Reason.ENTRIES_MISSING,
            "deletion_request.completed": Reason.ENTRIES_CONTRADICT,
        }
        assert reason_of(receipt) == wanted[event]


def test_no_entry_is_quoted_that_has_nothing_to_do_with_it() -> None:
    story = Story()
    story.register(["a"])
    story.ask(["z"])
    story.finish(["z"], [], "nothing_found")
    statement = story.statement(["z"], [], "nothing_found")
    receipt = story.receipt(statement)
    assert verify_receipt(rfc8785.dumps(receipt), [TRUSTED])
    wide = story.receipt(
        {
            **statement,
            "predicate": {
                **statement["predicate"],
                "versions": [{"model": str(MODEL), "number": 1, "digest": ""}],
            },
        }
    )
    receipt["log"] = wide["log"]
    assert len(receipt["log"]["entries"]) == 4
    assert reason_of(receipt) == Reason.ENTRIES_CONTRADICT
