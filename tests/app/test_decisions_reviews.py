"""What a policy holds waits for an approval, whatever becomes ready meanwhile."""

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.db import transaction
from app.tables import Erasure, RegisteredModel
from lethe.policy import Policy, Review
from tests.app.office import Office
from tests.app.working import NOW, hold, plan, publish

REVIEWED = NOW.model_copy(update={"review": Review(approval="manual")})
OVER_TWO = NOW.model_copy(update={"review": Review(hold_above=2)})


@pytest.fixture
def office(client: TestClient) -> Office:
    return Office(client)


def erasures() -> int:
    with transaction() as session:
        return session.scalars(select(func.count()).select_from(Erasure)).one()


def test_a_model_that_reviews_holds_what_concerns_it_and_nothing_else(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], REVIEWED)
    ready("faces", ["b", "c"], NOW)
    held, both, free = office.ask("a"), office.ask("b"), office.ask("c")
    named = office.ask("b", model="faces")
    statuses = {name: office.status(name) for name in (held, both, free, named)}
    assert statuses == {held: "held", both: "held", free: "pending", named: "pending"}
    assert office.look(held)["held_at"] is not None
    assert office.look(free)["held_at"] is office.look(held)["approved_at"] is None
    assert [len(office.look(each)["erasures"]) for each in (held, both, free)] == [0, 0, 1]
    (job_id,) = plan()
    publish(hold(job_id))
    assert {office.status(each) for each in (free, named)} == {"completed"}
    assert office.look(held)["days_left"] is not None  # the clock runs


def test_large_requests_alone_are_held_where_the_policy_says_above_which_size(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], OVER_TWO)
    assert office.status(office.ask("a", "x")) == "pending"
    assert office.status(office.ask("a", "x", "y")) == "held"
    assert office.status(office.ask("x", "y", "z")) == "nothing_found"
    assert office.status(office.ask("x", "y", "z", model="digits")) == "held"


@pytest.mark.parametrize(
    "review",
    [{"approval": "by two"}, {**Review().model_dump(), "sooner": 1}, "none"],
    ids=str,
)
def test_what_a_policy_of_another_release_says_of_reviews_is_for_somebody_to_look_at(
    office: Office, ready: Callable[..., UUID], review: object
) -> None:
    ready("digits", ["a"], NOW)
    ready("faces", ["a", "b"], NOW)
    with transaction() as session:
        model = session.scalars(select(RegisteredModel).where(RegisteredModel.name == "digits"))
        found = model.one()
        found.policy = {**found.policy, "review": review}
    unnamed, named = office.ask("a"), office.ask("x", model="digits")
    assert {office.status(each) for each in (unnamed, named)} == {"held"}
    assert office.status(office.ask("b")) == "pending"
    assert office.status(office.ask("nobody")) == "nothing_found"


def test_the_service_holds_every_request_if_it_is_told_to(
    office: Office, ready: Callable[..., UUID], reread: Callable[[str, str], None]
) -> None:
    ready("digits", ["a"], NOW)
    reread("LETHE_REVIEW", "manual")
    known, stranger = office.ask("a"), office.ask("nobody")
    assert (office.status(known), office.status(stranger)) == ("held", "held")
    assert (plan(), erasures()) == ([], 0)
    assert office.decide(known, "approve")["status"] == "pending"
    assert office.decide(stranger, "approve")["status"] == "nothing_found"
    publish(hold(*plan()))
    assert office.status(known) == "completed"


def test_an_approval_lets_a_held_request_go_on_once(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], REVIEWED)
    request = office.ask("a")
    first = office.decide(request, "approve", note="seen by two of us")
    assert (first["status"], len(first["erasures"])) == ("pending", 1)
    again = office.decide(request, "approve")
    assert again["approved_at"] == first["approved_at"] is not None
    (decision,) = office.decisions(request)
    assert (decision["action"], decision["by"]) == ("approve", "operator")
    assert (decision["note"], decision["reason"]) == ("seen by two of us", None)
    publish(hold(*plan()))
    assert office.events(request) == [
        "deletion_request.pending",
        "deletion_request.held",
        "decision.approve",
        "deletion_request.pending",
        "deletion_request.in_progress",
        "deletion_request.completed",
    ]


def test_what_was_approved_by_nobody_says_so_in_the_log(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], REVIEWED)
    for sample, approval in (("a", "manual"), ("b", "automatic")):
        assert office.log(office.ask(sample))[0]["facts"]["approval"] == approval


@pytest.mark.parametrize("ending", [("cancel", {}), ("reject", {"reason": "no_match"})])
def test_a_held_request_can_be_ended_and_no_later_model_adds_to_it(
    office: Office,
    register: Callable[..., UUID],
    accept: Callable[..., None],
    ready: Callable[..., UUID],
    ending: tuple[str, dict[str, str]],
) -> None:
    ready("digits", ["a"], REVIEWED)
    late = register("late", NOW)
    request = office.ask("a")
    office.decide(request, ending[0], **ending[1])
    accept(late, ["a"])
    assert office.look(request)["erasures"] == []
    assert office.status(request) == {"cancel": "cancelled", "reject": "rejected"}[ending[0]]


def test_a_model_that_becomes_ready_waits_for_the_review_of_what_is_held(
    office: Office,
    register: Callable[..., UUID],
    accept: Callable[..., None],
    ready: Callable[..., UUID],
) -> None:
    ready("digits", ["a"], REVIEWED)
    late = register("late", NOW)
    request = office.ask("a")
    accept(late, ["a", "b"])
    assert (office.status(request), office.look(request)["erasures"]) == ("held", [])
    answer = office.decide(request, "approve")
    assert [each["model"] for each in answer["erasures"]] == ["digits", "late"]


def test_a_model_that_becomes_ready_and_reviews_holds_its_own_part_alone(
    office: Office,
    register: Callable[..., UUID],
    accept: Callable[..., None],
    ready: Callable[..., UUID],
) -> None:
    ready("digits", ["a", "b"], NOW)
    late = register("late", REVIEWED)
    request, approved = office.ask("a"), office.ask("c")
    (job_id,) = plan()
    accept(late, ["a", "c"])
    assert [office.status(each) for each in (request, approved)] == ["held", "held"]
    publish(hold(job_id))  # nobody stops what was under way
    look = office.look(request)
    assert (look["status"], look["finished_at"]) == ("held", None)
    assert [each["status"] for each in look["erasures"]] == ["completed"]
    for each in (request, approved):
        office.decide(each, "approve")
    publish(hold(*plan()))
    assert [office.status(each) for each in (request, approved)] == ["completed"] * 2


def test_nobody_approves_what_is_not_held(office: Office, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    assert "not held" in office.refused(request, "approve")
    assert "neither rejected nor withdrawn" in office.refused(request, "reopen")
    assert office.decisions(request) == []


def test_a_policy_from_before_there_were_reviews_holds_nothing() -> None:
    assert Policy.model_validate({}).review == Review()
    assert not Review().holds(1_000_000)
    assert [Review(hold_above=2).holds(n) for n in (2, 3)] == [False, True]
