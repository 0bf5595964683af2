"""What honest receipts prove, and that the report says no more than that."""

import io
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785

from lethe.verify import (
    NotProven,
    Reason,
    Verified,
    VerifyingKey,
    describe_receipt,
    verify_receipt,
)
from tests.lethe.verify.names import (
    KEY,
    MODEL,
    OTHER_KEY,
    REQUEST,
    SALT,
    START,
    TRUSTED,
    Json,
    digest,
    weights,
)
from tests.lethe.verify.sealing import seal
from tests.lethe.verify.story import Story, erasure, in_two_versions, simple


def verified(receipt: Json, *keys: VerifyingKey, **beside: object) -> Verified:
    return verify_receipt(rfc8785.dumps(receipt), keys or [TRUSTED], **beside)  # type: ignore[arg-type]


def not_proven(receipt: Json, **beside: object) -> str:
    return "\n".join(describe_receipt(verified(receipt, **beside)).not_proven)


def proven(receipt: Json, **beside: object) -> str:
    return "\n".join(describe_receipt(verified(receipt, **beside)).proven)


def reason_of(receipt: Json, *keys: VerifyingKey, **beside: object) -> Reason:
    with pytest.raises(NotProven) as refused:
        verified(receipt, *keys, **beside)
    return refused.value.reason


def test_a_receipt_proves_its_request_its_version_and_its_samples() -> None:
    found = verified(simple()[1])
    (step,) = found.steps
    assert found.statement.request.id == REQUEST
    assert (step.version.model, step.version.number, step.parent.number) == (MODEL, 2, 1)
    assert (step.retained, len(step.removed)) == (1, 2)
    assert step.forgot(digest("a"))
    assert not step.forgot(digest("b"))
    assert found.head.size == 6


def test_samples_that_others_had_forgotten_before_are_proven_with_their_version() -> None:
    found = verified(in_two_versions()[1])
    assert [(step.version.number, len(step.removed)) for step in found.steps] == [(2, 1), (3, 2)]


def test_two_models_forget_each_by_itself() -> None:
    other = UUID("00000000-0000-4000-8000-00000000000b")
    story = Story()
    story.register(["a", "b"])
    story.register(["a"], other, "faces")
    story.ask(["a"])
    story.forget(["a"], other)
    story.forget(["a"])
    erasures = [erasure({"a": 2}), erasure({"a": 2}, model=other, name="faces")]
    story.finish(["a"], erasures)
    receipt = story.receipt(story.statement(["a"], erasures))
    assert {step.version.model_name for step in verified(receipt).steps} == {"digits", "faces"}
    swapped = [erasure({"a": 2}, name="faces"), erasures[1]]
    assert reason_of(story.receipt(story.statement(["a"], swapped))) == Reason.ENTRIES_CONTRADICT


@pytest.mark.parametrize("status", ["nothing_found", "cancelled"])
def test_a_request_that_changed_no_model_has_a_receipt_too(status: str) -> None:
    story = Story()
    story.ask(["z"])
    erasures = [] if status == "nothing_found" else [erasure({}, status="cancelled")]
    story.finish(["z"], erasures, status)
    receipt = story.receipt(story.statement(["z"], erasures, status))
    assert verified(receipt).steps == []
    assert status in proven(receipt)
    assert reason_of(receipt, weights=io.BytesIO(b"any")) == Reason.WEIGHTS_DIFFER


def test_what_was_not_given_is_not_proven() -> None:
    story, receipt = simple()
    bare = not_proven(receipt)
    for option in ("--weights", "--log", "--pin"):
        assert option in bare
    given = not_proven(
        receipt,
        weights=io.BytesIO(weights(2)),
        log=io.BytesIO(story.export()),
        pinned=[story.head(2)],
    )
    for option in ("--weights", "--log", "--pin"):
        assert option not in given


def test_what_no_receipt_can_prove_is_said() -> None:
    text = not_proven(simple()[1])
    assert "pseudonyms" in text
    assert "times are the service's own" in text
    assert "approximate, which proves no erasure" in text
    assert "1 sample of the request" in text
    assert "That nobody kept a copy." in text
    text = not_proven(in_two_versions()[1])
    assert "retrained without the samples" in text
    assert "inconclusive" in text


def test_a_key_without_dates_is_taken_and_it_is_said() -> None:
    receipt = simple()[1]
    undated = VerifyingKey(KEY.public_key())
    report = describe_receipt(verified(receipt, undated))
    assert [line for line in report.not_proven if undated.id in line]
    assert undated.id not in not_proven(receipt)


def test_statement_and_head_may_have_keys_of_their_own() -> None:
    story, receipt = simple()
    receipt["log"]["checkpoint"] = story.head(key=OTHER_KEY)
    other = VerifyingKey(OTHER_KEY.public_key(), "log")
    assert verified(receipt, TRUSTED, other).signers == (TRUSTED, other)
    assert reason_of(receipt) == Reason.UNKNOWN_KEY


def test_a_key_that_was_not_in_use_at_the_time_is_refused_for_statement_and_head() -> None:
    public = KEY.public_key()
    receipt = simple()[1]  # the head is of minute 100, the statement of minute 101
    at = [START + timedelta(minutes=minutes) for minutes in (99, 100, 100.5, 101, 102)]
    lives = {
        (at[1], at[3]): None,
        (at[2], None): Reason.KEY_NOT_YET_VALID,
        (at[4], None): Reason.KEY_NOT_YET_VALID,
        (None, at[2]): Reason.KEY_EXPIRED,
        (None, at[0]): Reason.KEY_EXPIRED,
    }
    for (introduced, retired), reason in lives.items():
        key = VerifyingKey(public, "log", introduced, retired)
        if reason is None:
            assert verified(receipt, key)
        else:
            assert reason_of(receipt, key) == reason


def test_a_request_from_before_commitments_is_proven_without_its_samples() -> None:
    story = Story()
    story.register(["a"])
    story.ask(["a"], salt=None)
    story.forget(["a"])
    story.finish(["a"], [erasure({"a": 2})])
    receipt = story.receipt(story.statement(["a"], [erasure({"a": 2})], salt=None))
    assert "no commitment to them" in not_proven(receipt)
    assert "committed to these" not in proven(receipt)
    told = story.receipt(story.statement(["a"], [erasure({"a": 2})], salt=SALT))
    assert reason_of(told) == Reason.SAMPLES_CONTRADICT


def test_a_version_whose_parent_is_from_before_commitments_says_so() -> None:
    story = Story()
    story.register(["a", "b"])
    del story.made[MODEL][0]["commitment"]
    story.ask(["a"])
    story.forget(["a"])
    story.finish(["a"], [erasure({"a": 2})])
    receipt = story.receipt(story.statement(["a"], [erasure({"a": 2})]))
    assert "version 1 retained" in not_proven(receipt)


def test_a_version_without_a_commitment_proves_nothing() -> None:
    story = Story()
    story.register(["a", "b"])
    story.ask(["a"])
    story.forget(["a"])
    del story.made[MODEL][1]["commitment"]
    story.finish(["a"], [erasure({"a": 2})])
    receipt = story.receipt(story.statement(["a"], [erasure({"a": 2})]))
    assert reason_of(receipt) == Reason.NO_COMMITMENT


def test_the_weights_are_named_by_their_version(tmp_path: Path) -> None:
    receipt = simple()[1]
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights(2))
    found = verified(receipt, weights=file).weights_of
    assert found is not None
    assert found.version.number == 2
    assert "those of version 2 of digits" in proven(receipt, weights=file)


def test_weights_of_another_version_are_refused_and_those_with_samples_in_them_are_named() -> None:
    receipt = in_two_versions()[1]
    assert verified(receipt, weights=io.BytesIO(weights(3)))
    for number in (1, 2):  # the second one still has one of the two samples
        with pytest.raises(NotProven, match=f"version {number} of digits") as refused:
            verified(receipt, weights=io.BytesIO(weights(number)))
        assert refused.value.reason == Reason.WEIGHTS_DIFFER
    assert reason_of(receipt, weights=io.BytesIO(weights(4))) == Reason.WEIGHTS_DIFFER
    assert reason_of(receipt, weights=io.BytesIO(b"")) == Reason.WEIGHTS_DIFFER


def test_a_witness_without_the_log_still_notices_another_head_of_the_same_size() -> None:
    story, receipt = simple()
    assert "--pin" not in not_proven(receipt, pinned=[story.head(minutes=90)])
    assert "--pin" in not_proven(receipt, pinned=[story.head(3)])
    forked = story.head(root_hash=digest("another log"))
    assert reason_of(receipt, pinned=[forked]) == Reason.LOG_FORKED
    elsewhere = story.head(origin="lethe/another")
    assert reason_of(receipt, pinned=[elsewhere]) == Reason.OTHER_LOG
    assert reason_of(receipt, pinned=[story.head(key=OTHER_KEY)]) == Reason.UNKNOWN_KEY


def test_others_words_cannot_command_a_terminal() -> None:
    story, receipt = simple()
    statement = story.statement(["a", "z"], [erasure({"a": 2})])
    statement["predicate"]["not_shown"] = ["\x1b[2J\u202eREFUSED" + "x" * 5_000]
    told = not_proven({**receipt, "envelope": seal(rfc8785.dumps(statement))})
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "x" * 500 not in told
