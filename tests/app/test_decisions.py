"""Somebody decides about a request: who, when and what for is kept, and it comes true."""

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.deletions import cases
from app.errors import LeaseLost
from app.statuses import DenialReason
from lethe.policy import Policy, Review
from tests.app.office import REQUESTS, Office
from tests.app.withdrawals import Desk
from tests.app.working import NOW, fail, hold, plan, publish

REVIEWED = NOW.model_copy(update={"review": Review(approval="manual")})
REASONS = [
    "suspected_fraud",
    "insuf_verification",
    "no_match",
    "claim_not_covered",
    "outside_jurisdiction",
    "too_many_requests",
    "other",
]


@pytest.fixture
def office(client: TestClient) -> Office:
    return Office(client)


def test_the_log_says_who_decided_what_for_and_leaves_the_note_out(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], REVIEWED)
    request = office.ask("a")
    answer = office.decide(request, "reject", reason="suspected_fraud", note="MARKED Jane Doe")
    (row,) = office.decisions(request)
    entries = office.log(request)
    (entry,) = [each for each in entries if each["event"] == "decision.reject"]
    assert entry["facts"] == {
        "by": "operator",
        "decision": row["id"],
        "reason": "suspected_fraud",
    }
    assert entries[-1]["event"] == "deletion_request.rejected"
    assert entries[-1]["facts"]["reason"] == answer["request"]["rejection"] == "suspected_fraud"
    assert row["note"] == "MARKED Jane Doe"
    assert "MARKED" not in str(entries) + str(answer)
    assert "MARKED" not in office.http.get("/v1/audit/entries").text


def test_a_request_is_rejected_for_a_reason_of_the_data_rights_protocol(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    assert [str(reason) for reason in DenialReason] == REASONS
    for reason in REASONS:
        request = office.ask("a")
        answer = office.decide(request, "reject", reason=reason)["request"]
        assert (answer["status"], answer["rejection"]) == ("rejected", reason)
    nothing = office.ask("nobody")
    assert "nothing_found" in office.refused(nothing, "reject", reason="no_match")
    assert office.send(nothing, "reject", reason="because").status_code == 422


def test_a_rejection_takes_erasures_out_of_their_jobs_and_says_for_which_it_was_too_late(
    office: Office,
    ready: Callable[..., UUID],
    register: Callable[..., UUID],
    accept: Callable[..., None],
    desk: Desk,
) -> None:
    models = {name: ready(name, ["a", "b"], NOW) for name in ("slow", "swift")}
    late = register("late", NOW)
    request, other = office.ask("a"), office.ask("b")
    jobs = {job.model_id: job for job in map(hold, plan())}
    publish(jobs[models["swift"]])
    answer = office.decide(request, "reject", reason="claim_not_covered")
    assert (answer["rejected"], answer["too_late"]) == (["slow"], ["swift"])
    assert answer["request"]["status"] == "completed"  # in part
    with pytest.raises(LeaseLost):
        publish(jobs[models["slow"]])
    publish(hold(jobs[models["slow"]].id))
    assert (desk.forgotten(models["slow"]), desk.forgotten(models["swift"])) == ("b", "ab")
    assert office.status(other) == "completed"
    assert office.decide(request, "reject", reason="claim_not_covered") == answer
    accept(late, ["a"])
    assert office.look(request) == answer["request"]  # no model adds to it any more
    assert "reopen" in office.refused(request, "reject", reason="other")
    assert [each["action"] for each in office.decisions(request)] == ["reject"]


def test_what_a_job_would_not_let_go_is_rejected_once_it_is_left_behind(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("slow", "abcd", NOW)
    ready("swift", "a", Policy())
    request, *others = (office.ask(sample) for sample in "abcd")
    (job_id,) = plan()
    assert len(others) == cases.MOST_INTERRUPTIONS
    for other in others:
        hold(job_id)
        office.decide(other, "cancel")
    held = hold(job_id)
    answer = office.decide(request, "reject", reason="no_match")
    assert (answer["rejected"], answer["too_late"]) == (["swift"], ["slow"])
    assert answer["request"]["status"] == "in_progress"
    fail(held)
    assert office.status(request) == "needs_attention"
    answer = office.decide(request, "reject", reason="no_match")
    assert (answer["rejected"], answer["too_late"]) == (["slow", "swift"], [])
    assert answer["request"]["status"] == "rejected"


def test_a_request_that_needs_attention_can_be_rejected(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    fail(hold(*plan()))
    assert office.status(request) == "needs_attention"
    answer = office.decide(request, "reject", reason="other", note="cannot be lost")
    assert answer["request"]["status"] == "rejected"
    assert answer["request"]["erasures"][0]["problem"] is None
    assert plan() == []


def test_what_is_withdrawn_cannot_be_rejected_nor_the_other_way_round(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    withdrawn, rejected = office.ask("a"), office.ask("a")
    office.decide(withdrawn, "cancel")
    office.decide(rejected, "reject", reason="no_match")
    assert "withdrawn" in office.refused(withdrawn, "reject", reason="no_match")
    assert "rejected" in office.refused(rejected, "cancel")
    for request in (withdrawn, rejected):
        assert "not held" in office.refused(request, "approve")


@pytest.mark.parametrize("ending", [("cancel", {}), ("reject", {"reason": "no_match"})])
def test_a_reopened_request_is_forgotten_after_all_by_the_same_deadline(
    office: Office,
    ready: Callable[..., UUID],
    desk: Desk,
    ending: tuple[str, dict[str, str]],
) -> None:
    model = ready("digits", ["a"], NOW)
    request = office.ask("a")
    before = office.look(request)
    office.decide(request, ending[0], **ending[1])
    later = ready("faces", ["a"], NOW)  # registered afterwards, it holds the sample as well
    answer = office.decide(request, "reopen")
    assert (answer["status"], answer["due_at"]) == ("pending", before["due_at"])
    assert [each["model"] for each in answer["erasures"]] == ["digits", "faces"]
    for gone in ("finished_at", "rejected_at", "rejection", "cancelled_at"):
        assert answer[gone] is None, gone
    assert office.decide(request, "reopen")["status"] == "pending"
    for job_id in plan():
        publish(hold(job_id))
    assert office.status(request) == "completed"
    assert (desk.forgotten(model), desk.forgotten(later)) == ("a", "a")
    actions = [each["action"] for each in office.decisions(request)]
    assert actions == [ending[0], "reopen"]
    assert office.events(request)[-1] == "deletion_request.completed"


def test_what_was_rejected_before_any_approval_is_held_again(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], REVIEWED)
    request = office.ask("a")
    office.decide(request, "reject", reason="insuf_verification")
    assert office.decide(request, "reopen")["status"] == "held"
    assert plan() == []
    assert office.decide(request, "approve")["status"] == "pending"


def test_what_was_forgotten_in_part_is_reopened_for_the_rest(
    office: Office, ready: Callable[..., UUID]
) -> None:
    models = {name: ready(name, ["a"], NOW) for name in ("slow", "swift")}
    request = office.ask("a")
    jobs = {job.model_id: job for job in map(hold, plan())}
    publish(jobs[models["swift"]])
    office.decide(request, "reject", reason="other")
    answer = office.decide(request, "reopen")
    assert (answer["status"], answer["finished_at"]) == ("in_progress", None)
    publish(hold(*plan()))
    assert office.status(request) == "completed"


def test_a_second_try_is_a_decision_too(office: Office, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a", "b"], NOW)
    alone, together = office.ask("a"), office.ask("b")
    (job_id,) = plan()
    fail(hold(job_id))
    assert office.http.post(f"{REQUESTS}/{alone}/retry").status_code == 202
    assert office.http.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    assert [each["action"] for each in office.decisions(alone)] == ["retry"]
    assert [each["action"] for each in office.decisions(together)] == ["retry"]
    assert office.http.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    assert len(office.decisions(together)) == 1


def test_decisions_come_in_pages_newest_first(office: Office, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    for action in ("cancel", "reopen") * 2:
        office.decide(request, action)
    url = f"{REQUESTS}/{request}/decisions"
    page = office.http.get(url, params={"limit": 3}).json()
    rest = office.http.get(url, params={"cursor": page["next_cursor"]}).json()
    actions = [each["action"] for each in [*page["items"], *rest["items"]]]
    assert actions == ["reopen", "cancel"] * 2
    assert rest["next_cursor"] is None


def test_what_is_unknown_or_not_asked_for_is_refused(office: Office) -> None:
    nobody = "6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11"
    bodies = {
        "reject": {"reason": "other"},
        "extend": {"reasons": "x"},
        "pause": {"ground": "identity"},
    }
    for action in ("approve", "reject", "reopen", "extend", "pause", "resume", "confirm"):
        assert office.send(nobody, action, **bodies.get(action, {})).status_code == 404
    assert office.http.get(f"{REQUESTS}/{nobody}/decisions").status_code == 404
    request = office.ask("a")
    for action in ("approve", "reject", "reopen", "extend", "pause"):
        answer = office.send(request, action, **bodies.get(action, {}), surplus="MARKED")
        assert answer.status_code == 422, action
        assert "MARKED" not in answer.text
