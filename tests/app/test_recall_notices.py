"""Each withdrawal makes a notice for each recipient, and who has not answered is seen."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app.db import transaction
from app.jobs import publication
from app.jobs.leases import Job
from app.jobs.publication import NewVersion
from app.recall import service
from app.recall.notices import Reminder
from app.tables import Notice, Recipient
from tests.app import working
from tests.app.purges import MINUTE, entries, purge_due, wait_for_a_lock
from tests.app.recalls import RECIPIENTS, URL, Office, deliveries, make_older
from tests.app.working import NOW

OVERDUE = timedelta(hours=72)  # the default
NEW = NewVersion("sha256:" + "2" * 64, 1, "iau", "approximate", "passed", 0.0)


@pytest.fixture
def office(client: TestClient, ready: Callable[..., UUID]) -> Office:
    """With a model called digits, trained on `a` to `d`, whose every request is due at once."""
    ready("digits", ["a", "b", "c", "d"], NOW)
    return Office(client)


def test_each_recipient_of_the_model_gets_a_notice_of_its_withdrawal(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("other", ["x"], NOW)
    asks, hook = office.register("asks"), office.register("hook", URL)
    office.register("of another model", model="other")
    assert office.notices()["items"] == []
    office.forget("a")
    found = office.notices()["items"]
    assert {each["recipient"]: each["model"] for each in found} == {
        asks["id"]: "digits",
        hook["id"]: "digits",
    }
    first = office.http.get("/v1/models/digits/versions/1").json()
    for each in found:
        assert each["version"] == {"number": 1, "digest": first["digest"]}
        assert (each["acknowledged_at"], each["overdue"]) == (None, False)
        assert (each["delivery"] is None) is (each["recipient_name"] == "asks")
    told = {each["subject"]: each["facts"] for each in entries("notice.created")}
    assert told == {
        each["id"]: {
            "recipient": each["recipient"],
            "model": str(office.model_id()),
            "version": 1,
            "digest": first["digest"],
        }
        for each in found
    }


def test_the_message_names_the_version_and_where_to_acknowledge(office: Office) -> None:
    office.register("hook", URL)
    office.forget("a")
    [message] = deliveries()
    [notice] = office.notices()["items"]
    first, second = office.http.get("/v1/models/digits/versions").json()["items"]
    assert (message.event, message.url, message.host) == (
        "version.withdrawn",
        URL,
        "checkout.example.com",
    )
    body = json.loads(message.payload)
    at = body.pop("timestamp")
    assert at.endswith("Z")
    assert at.rstrip("Z") == first["withdrawn_at"].removesuffix("Z").removesuffix("+00:00")
    assert body == {
        "type": "version.withdrawn",
        "data": {
            "notice": notice["id"],
            "acknowledge_at": f"/v1/notices/{notice['id']}/acknowledgement",
            "model": "digits",
            "version": 1,
            "digest": first["digest"],
            "current_version": 2,
            "current_digest": second["digest"],
        },
    }
    assert office.http.post(body["data"]["acknowledge_at"], json={"by": "me"}).status_code == 200


def test_a_publication_that_fails_leaves_no_notice(office: Office) -> None:
    office.register("hook", URL)
    job = queued(office, "a")

    def publish_and_fail() -> None:
        with transaction() as session:
            publication.publish(session, job, NEW, [])
            assert len(session.scalars(select(Notice)).all()) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish_and_fail()
    assert (office.notices()["items"], deliveries(), entries("notice.created")) == ([], [], [])


def test_who_registers_later_or_was_removed_is_told_of_later_withdrawals_only(
    office: Office,
) -> None:
    removed = office.register("removed")
    office.http.delete(f"{RECIPIENTS.format('digits')}/{removed['id']}")
    office.forget("a")
    late = office.register("late")
    office.forget("b")
    [notice] = office.notices()["items"]
    assert (notice["recipient"], notice["version"]["number"]) == (late["id"], 2)


def test_a_registration_during_a_withdrawal_is_answered_after_it(office: Office) -> None:
    job = queued(office, "a")
    answered: list[Any] = []
    registering = threading.Thread(target=lambda: answered.append(office.register("web")))
    with transaction() as session:
        publication.publish(session, job, NEW, [])
        registering.start()
        wait_for_a_lock(registering)
        assert answered == []
    registering.join(timeout=20)
    assert len(answered) == 1
    assert office.notices()["items"] == []


def test_a_withdrawal_during_a_registration_comes_after_it(office: Office) -> None:
    job = queued(office, "a")
    publishing = threading.Thread(target=working.publish, args=[job])
    with transaction() as session:
        made = service.register(session, "digits", "web", None)
        publishing.start()
        wait_for_a_lock(publishing)
    publishing.join(timeout=20)
    assert [each["recipient"] for each in office.notices()["items"]] == [str(made.id)]


def queued(office: Office, sample: str) -> Job:
    """A claimed job that is to forget the sample."""
    office.http.post("/v1/deletion-requests", json={"sample_ids": [sample]})
    (job_id,) = working.plan()
    return working.hold(job_id)


def test_an_acknowledgement_counts_once_and_the_first_is_kept(office: Office) -> None:
    office.register("hook", URL)
    office.forget("a")
    [notice] = office.notices()["items"]
    first = office.acknowledge(notice["id"], "on-call, web")
    assert first.status_code == 200
    assert first.json()["acknowledged_by"] == "on-call, web"
    assert first.json()["acknowledged_at"] is not None
    again = office.acknowledge(notice["id"], "somebody else")
    assert (again.status_code, again.json()) == (200, first.json())
    [entry] = entries("notice.acknowledged")
    assert (entry["subject"], entry["facts"]["version"]) == (notice["id"], 1)
    # Who knows is not written to any more.
    assert [each.given_up_at is None for each in deliveries()] == [False]
    for body in ({}, {"by": ""}, {"by": "x" * 201}, {"by": "me", "at": "now"}):
        url = f"/v1/notices/{notice['id']}/acknowledgement"
        assert office.http.post(url, json=body).status_code == 422


def test_no_name_of_anybody_is_in_the_audit_log(office: Office) -> None:
    office.register("MARKED recipient", URL)
    office.forget("a")
    office.acknowledge(office.notices()["items"][0]["id"], "MARKED person")
    with transaction() as session:
        log = " ".join(session.scalars(text("SELECT payload FROM audit_entries")))
    assert "notice.acknowledged" in log
    assert "MARKED" not in log
    assert "checkout.example" not in log


def test_notices_stay_open_when_the_version_is_purged_or_the_recipient_removed(
    office: Office,
) -> None:
    made = office.register("web", URL)
    office.forget("a")
    where = f"{RECIPIENTS.format('digits')}/{made['id']}"
    with transaction() as session:
        session.execute(text("UPDATE model_versions SET withdrawn_at = now() - interval '1 year'"))
    assert purge_due() == 1
    office.http.delete(where)
    [notice] = office.notices(acknowledged=False)["items"]
    assert notice["delivery"]["problem"] == "the recipient was removed"
    assert notice["delivery"]["given_up_at"] is not None
    assert office.http.get(where).json()["unacknowledged"] == 1
    assert [each["id"] for each in office.http.get(where + "/notices").json()["items"]] == [
        notice["id"]
    ]
    with transaction() as session:
        assert session.get_one(Recipient, UUID(made["id"])).secret is None
    assert office.acknowledge(notice["id"]).status_code == 200


def test_who_has_not_answered_is_seen_and_since_when(office: Office) -> None:
    web, app = office.register("web")["id"], office.register("app")["id"]
    office.forget("a")
    by_recipient = {each["recipient"]: each["id"] for each in office.notices()["items"]}
    office.acknowledge(by_recipient[app])
    assert [each["recipient"] for each in office.notices(acknowledged=False)["items"]] == [web]
    assert [each["recipient"] for each in office.notices(acknowledged=True)["items"]] == [app]
    make_older(OVERDUE - MINUTE)
    assert office.notices(acknowledged=False, older_than="PT73H")["items"] == []
    assert len(office.notices(older_than="PT71H")["items"]) == 2
    assert office.notices()["overdue"] == 0
    make_older(OVERDUE + MINUTE)
    page = office.notices(acknowledged=False, older_than="P3D")
    assert [(each["recipient"], each["overdue"]) for each in page["items"]] == [(web, True)]
    assert page["overdue"] == 1
    answered = office.notices(acknowledged=True)
    assert [each["overdue"] for each in answered["items"]] == [False]
    shown = office.http.get(RECIPIENTS.format("digits")).json()["items"]
    owed = {each["id"]: (each["unacknowledged"], each["overdue"]) for each in shown}
    assert owed == {web: (1, 1), app: (0, 0)}
    for recipient, count in ((web, 1), (app, 0)):
        page = office.http.get(f"{RECIPIENTS.format('digits')}/{recipient}/notices").json()
        assert (page["overdue"], len(page["items"])) == (count, 1)
    assert office.notices(older_than="P99999999D")["items"] == []
    assert len(office.notices(older_than="PT0S")["items"]) == 2
    for age in ("-PT1H", "soon"):
        assert office.http.get("/v1/notices", params={"older_than": age}).status_code == 422


def test_notices_come_in_pages(office: Office) -> None:
    for name in "abc":
        office.register(name)
    office.forget("a")
    seen, cursor = [], None
    while True:
        page = office.notices(limit=2, **({} if cursor is None else {"cursor": cursor}))
        seen += [each["recipient_name"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == ["a", "b", "c"]
    assert office.http.get("/v1/notices", params={"cursor": "made up"}).status_code == 422


def test_what_is_overdue_is_said_once_an_hour(
    office: Office,
    reread: Callable[[str, str], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from workers import tasks  # makes the Celery application, which needs the settings

    monkeypatch.setattr(tasks, "reminder", Reminder())
    office.register("web")
    office.register("app")
    office.forget("a")
    make_older(OVERDUE - MINUTE)
    capfd.readouterr()
    tasks.sweep()
    assert said(capfd) == []
    reread("LETHE_RECALL_OVERDUE", "PT71H")
    tasks.sweep()
    tasks.sweep()
    assert said(capfd) == [("warning", {"digits": 2})]
    assert tasks.reminder.said_at is not None
    tasks.reminder.said_at -= 3_599
    tasks.sweep()
    assert said(capfd) == []
    tasks.reminder.said_at -= 2
    tasks.sweep()
    assert said(capfd) == [("warning", {"digits": 2})]


def said(capfd: pytest.CaptureFixture[str]) -> list[tuple[str, Any]]:
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    return [(x["level"], x["models"]) for x in lines if x["event"] == "notice.overdue"]
