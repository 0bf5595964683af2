"""A request's clock is confirmed, extended and stopped as the law has it, and not otherwise."""

import calendar
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.db import now
from app.deletions import intake, timekeeping
from app.deletions.clocks import Clock, PauseGround, Regulation, Term
from app.deletions.laws import law_of
from app.settings import Settings
from tests.app.office import Office, at
from tests.app.withdrawals import Desk
from tests.app.working import NOW, fail, hold, job_of, plan, publish

RECEIVED = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
DAY = timedelta(days=1)
OWN = {"term": {"days": 20}, "extension": {"days": 5}, "confirm_days": 3, "pauses": ["identity"]}


@pytest.fixture
def office(client: TestClient) -> Office:
    return Office(client)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Say when requests come and decisions are made."""

    def set_(moment: datetime) -> None:
        monkeypatch.setattr(intake, "received_at", lambda _: moment)
        monkeypatch.setattr(timekeeping, "now", lambda: moment)

    set_(RECEIVED)
    return set_


def months_later(received: datetime, months: int) -> datetime:
    """Count months on the calendar, by a way of its own; the last day where there is no such."""
    year, month = divmod(received.year * 12 + received.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return received.replace(year=year, month=month + 1, day=min(received.day, last))


def test_gdpr_is_extended_once_by_two_months_from_the_end_of_the_first_term(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a", "b"], NOW)
    request, other = office.ask("a"), office.ask("b")
    first = months_later(RECEIVED, 1)
    assert at(office.look(request)["due_at"]) == first == datetime(2026, 2, 28, 10, 30, tzinfo=UTC)
    (job_id,) = plan()
    today(first)  # the last moment of the first term
    answer = office.decide(request, "extend", reasons="MARKED: many models")
    assert at(answer["due_at"]) == months_later(first, 2)
    assert at(answer["extended_at"]) == first
    # The job keeps the nearest deadline of what is in it, which is another's.
    assert job_of(job_id).due_at == first == at(office.look(other)["due_at"])
    office.decide(other, "extend", reasons="the same")
    assert job_of(job_id).due_at == months_later(first, 2)
    (entry,) = (each for each in office.log(request) if each["event"] == "decision.extend")
    assert at(entry["facts"]["due_at_before"]) == first
    assert at(entry["facts"]["due_at"]) == months_later(first, 2)
    assert "MARKED" not in str(entry)
    assert office.decisions(request)[0]["note"] == "MARKED: many models"


def test_an_extension_that_is_sent_again_is_the_same_and_a_second_one_is_refused(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    until = "2026-04-01T12:00:00+02:00"
    first = office.decide(request, "extend", reasons="many models", until=until)
    assert at(first["due_at"]) == at(until)
    again = office.decide(request, "extend", reasons="many models", until="2026-04-01T10:00:00Z")
    assert again["due_at"] == first["due_at"]
    for reasons, more in (("others", {"until": until}), ("many models", {})):
        words = office.refused(request, "extend", reasons=reasons, **more)
        assert "once" in words
        assert "Art. 12(3)" in words
    assert len(office.decisions(request)) == 1


def test_an_extension_comes_within_the_first_term_and_stays_within_the_law(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    first, longest = months_later(RECEIVED, 1), months_later(months_later(RECEIVED, 1), 2)
    tick = timedelta(microseconds=1)
    for until in (longest + tick, first, RECEIVED):
        words = office.refused(request, "extend", reasons="x", until=until.isoformat())
        assert "longest term" in words
    for wrong in ("9999-12-31T23:59:59-14:00", "2026-03-01T00:00:00", 1_800_000_000):
        assert office.send(request, "extend", reasons="x", until=wrong).status_code == 422
    assert office.send(request, "extend", reasons="", until=None).status_code == 422
    assert office.send(request, "extend").status_code == 422
    today(first + tick)
    assert "first term is over" in office.refused(request, "extend", reasons="x")
    today(first)
    office.decide(request, "extend", reasons="x", until=longest.isoformat())


def test_ccpa_has_forty_five_days_twice_and_its_clock_never_stops(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a", regulation="ccpa")
    assert at(office.look(request)["due_at"]) == RECEIVED + 45 * DAY
    for ground in PauseGround:
        words = office.refused(request, "pause", ground=ground)
        assert "11 CCR § 7021" in words
    assert office.look(request)["paused_at"] is None
    answer = office.decide(request, "extend", reasons="x")
    assert at(answer["due_at"]) == RECEIVED + 90 * DAY


def test_receipt_is_confirmed_within_ten_business_days_where_the_law_asks_for_it(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a"], NOW)
    request, gdpr = office.ask("a", regulation="ccpa"), office.ask("a")
    # Saturday, 31 January; ten weekdays later it is Friday, 13 February 2026.
    assert at(office.look(request)["confirm_by"]) == datetime(2026, 2, 13, 10, 30, tzinfo=UTC)
    today(RECEIVED + DAY)
    answer = office.decide(request, "confirm")
    assert at(answer["confirmed_at"]) == RECEIVED + DAY
    today(RECEIVED + 2 * DAY)
    assert office.decide(request, "confirm")["confirmed_at"] == answer["confirmed_at"]
    assert [each["action"] for each in office.decisions(request)] == ["confirm"]
    assert office.look(gdpr)["confirm_by"] is None
    assert "No confirmation" in office.refused(gdpr, "confirm")


def test_no_law_no_clock(office: Office, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a", regulation="none")
    look = office.look(request)
    assert (look["due_at"], look["days_left"], look["confirm_by"]) == (None, None, None)
    assert "no clock" in office.refused(request, "pause", ground="identity")
    assert "nothing to extend" in office.refused(request, "extend", reasons="x")


def test_while_a_clock_stands_still_nothing_is_planned_and_the_deadline_waits(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None], desk: Desk
) -> None:
    model = ready("digits", ["a", "b"], NOW)
    request, other = office.ask("a"), office.ask("b")
    due = at(office.look(request)["due_at"])
    stopped, went_on = RECEIVED + 3 * DAY, RECEIVED + timedelta(days=40, hours=7, microseconds=1)
    today(stopped)
    answer = office.decide(request, "pause", ground="identity", note="asked for a document")
    assert (at(answer["paused_at"]), answer["pause_ground"]) == (stopped, "identity")
    assert [each["status"] for each in answer["erasures"]] == ["paused"]
    assert (answer["status"], answer["days_left"]) == ("pending", (due - stopped).days)
    assert answer["breach_risk"]["level"] == "low"
    publish(hold(*plan()))
    assert desk.forgotten(model) == "b"
    assert (plan(), office.status(other)) == ([], "completed")
    today(went_on)  # long after the deadline that was
    answer = office.decide(request, "resume")
    assert at(answer["due_at"]) == due + (went_on - stopped)
    assert (answer["paused_at"], answer["pause_ground"]) == (None, None)
    assert office.decide(request, "resume")["due_at"] == answer["due_at"]
    assert [each["action"] for each in office.decisions(request)] == ["pause", "resume"]
    (job_id,) = plan()
    assert job_of(job_id).due_at == due + (went_on - stopped)
    publish(hold(job_id))
    assert (desk.forgotten(model), office.status(request)) == ("ab", "completed")


def test_a_pause_takes_a_request_out_of_its_job_and_leaves_the_others_in(
    office: Office, ready: Callable[..., UUID], desk: Desk
) -> None:
    model = ready("digits", ["a", "b"], NOW)
    request, _ = office.ask("a"), office.ask("b")
    (job_id,) = plan()
    hold(job_id)
    answer = office.decide(request, "pause", ground="clarification")
    assert [(each["status"], each["job"]) for each in answer["erasures"]] == [("paused", None)]
    publish(hold(job_id))
    assert desk.forgotten(model) == "b"


def test_a_clock_is_stopped_on_one_ground_at_a_time_and_gone_on_with_once_it_was(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    assert "does not stand still" in office.refused(request, "resume")
    first = office.decide(request, "pause", ground="identity")
    assert office.decide(request, "pause", ground="identity")["paused_at"] == first["paused_at"]
    assert "already" in office.refused(request, "pause", ground="clarification")
    assert len(office.decisions(request)) == 1


def test_pauses_move_the_end_of_the_first_term_and_of_the_longest(
    office: Office, ready: Callable[..., UUID], today: Callable[[datetime], None]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    first = months_later(RECEIVED, 1)
    today(RECEIVED + DAY)
    office.decide(request, "pause", ground="identity")
    today(RECEIVED + 11 * DAY)
    office.decide(request, "resume")
    today(first + 10 * DAY)
    office.decide(request, "pause", ground="identity")
    today(first + 60 * DAY)  # still within the first term, which stands still at its last moment
    answer = office.decide(request, "extend", reasons="x")
    assert at(answer["due_at"]) == months_later(first, 2) + 10 * DAY
    answer = office.decide(request, "resume")
    assert at(answer["due_at"]) == months_later(first, 2) + 60 * DAY


@pytest.mark.parametrize("ending", [("cancel", {}), ("reject", {"reason": "insuf_verification"})])
def test_what_ends_while_its_clock_stands_still_is_not_late_for_that(
    office: Office, ready: Callable[..., UUID], ending: tuple[str, dict[str, str]]
) -> None:
    ready("digits", ["a"], NOW)
    request = office.ask("a")
    due = at(office.look(request)["due_at"])
    paused_at = at(office.decide(request, "pause", ground="identity")["paused_at"])
    answer = office.decide(request, ending[0], **ending[1])["request"]
    stood = at(answer["due_at"]) - due
    assert stood == at(answer["finished_at"]) - paused_at > timedelta(0)
    assert (answer["paused_at"], answer["days_left"], answer["breach_risk"]) == (None,) * 3
    reopened = office.decide(request, "reopen")
    assert (reopened["due_at"], reopened["erasures"][0]["status"]) == (answer["due_at"], "pending")


def test_what_a_paused_request_still_waits_for_is_paused_too(
    office: Office,
    ready: Callable[..., UUID],
    register: Callable[..., UUID],
    accept: Callable[..., None],
) -> None:
    ready("digits", ["a"], NOW)
    late = register("late", NOW)
    request = office.ask("a")
    fail(hold(*plan()))
    office.decide(request, "pause", ground="identity")
    accept(late, ["a"])
    assert office.http.post(f"/v1/deletion-requests/{request}/retry").status_code == 202
    assert [each["status"] for each in office.look(request)["erasures"]] == ["paused"] * 2
    assert plan() == []
    office.decide(request, "resume")
    assert len(plan()) == 2


def test_a_finished_request_has_no_clock_to_decide_about(
    office: Office, today: Callable[[datetime], None]
) -> None:
    request, ccpa = office.ask("nobody"), office.ask("nobody", regulation="ccpa")
    assert "nothing_found" in office.refused(request, "pause", ground="identity")
    assert "nothing_found" in office.refused(request, "extend", reasons="x")
    assert "nothing_found" in office.refused(ccpa, "confirm")


def test_a_policy_of_ones_own_sets_the_clock_that_it_says(
    office: Office, ready: Callable[..., UUID], reread: Callable[[str, str], None]
) -> None:
    ready("digits", ["a"], NOW)
    body = {"sample_ids": ["a"], "regulation": "custom"}
    answer = office.http.post("/v1/deletion-requests", json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:lethe:problem:no-custom-clock"
    reread("LETHE_CUSTOM_CLOCK", json.dumps(OWN))
    request = office.ask("a", regulation="custom")
    look = office.look(request)
    received = at(look["received_at"])
    assert at(look["due_at"]) == received + 20 * DAY
    assert look["confirm_by"] is not None
    assert "LETHE_CUSTOM_CLOCK" in office.refused(request, "pause", ground="clarification")
    assert at(office.decide(request, "extend", reasons="x")["due_at"]) == received + 25 * DAY
    assert office.decide(request, "pause", ground="identity")["pause_ground"] == "identity"
    reread("LETHE_CUSTOM_CLOCK", "")  # as Compose hands on what is not set
    assert office.look(request)["confirm_by"] is None
    assert "LETHE_CUSTOM_CLOCK" in office.refused(request, "confirm")


def test_a_custom_clock_is_read_as_it_is_written(environment: dict[str, str]) -> None:
    given = Settings(custom_clock=json.dumps(OWN))
    assert given.custom_clock is not None
    assert given.custom_clock.pauses == ("identity",)
    assert law_of(Regulation.GDPR) is Regulation.GDPR
    assert Clock("x", Term(days=20), Term(days=5), 3, frozenset({PauseGround.IDENTITY}))
    for wrong in ("{", "[]", "{}", '{"term": {}}', '{"term": {"days": -1}}', '{"term": 3}'):
        with pytest.raises(ValidationError, match="custom_clock"):
            Settings(custom_clock=wrong)
    for part in ({"pauses": ["coffee"]}, {"confirm_days": 0}, {"terms": 1}, {"extension": {}}):
        with pytest.raises(ValidationError, match="custom_clock"):
            Settings(custom_clock=json.dumps({**OWN, **part}))
    assert now().tzinfo is UTC
