"""Lists are filtered as a dashboard asks, in either order, by indexes, in pages that hold still."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text, update

from app.db import engine, transaction
from app.deletions import service
from app.deletions.service import Filter, Order
from app.statuses import RequestStatus
from app.tables import DeletionRequest
from tests.app.working import NOW, hold, plan, publish, refuse

URL = "/v1/deletion-requests"
MANY = 50_000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# When some hundred of the many requests below are due.
SOON = BEGIN + timedelta(days=31, minutes=7_500)


def walk(client: TestClient, url: str = URL, /, **wanted: Any) -> list[dict[str, Any]]:
    """Every row of a list, in pages of two."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        params = {**wanted, "limit": 2, **({} if cursor is None else {"cursor": cursor})}
        answer = client.get(url, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


@pytest.fixture
def several(
    client: TestClient, ready: Callable[..., UUID], register: Callable[..., UUID]
) -> list[dict[str, Any]]:
    """Requests in several states, as they are answered one by one."""
    ready("digits", ["a", "b"], policy=NOW)
    ready("letters", ["a", "c"])
    bodies = [
        {"sample_ids": ["b"], "reference": "case-1", "regulation": "ccpa"},
        {"sample_ids": ["a"], "reference": "case-2"},
        {"sample_ids": ["c"], "model": "digits"},
        {"sample_ids": ["zzz"], "reference": "case-1"},
        {"sample_ids": ["c"], "regulation": "ccpa"},
        {"sample_ids": ["c"], "model": "letters", "regulation": "none"},
    ]
    made = client.post("/v1/access-keys", json={"name": "shop", "scopes": ["erasure:submit"]})
    shop = {"Authorization": f"Bearer {made.json()['key']}"}
    urls = []
    for number, body in enumerate(bodies):
        if number == 1:
            publish(hold(plan()[0]))
        headers = shop if number % 2 else {}
        answer = client.post(URL, json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        urls.append(answer.headers["Location"])
    refuse(hold(plan()[0]))
    # Apart, so that every one of them can be told from the next by its time.
    with transaction() as session:
        for number, url in enumerate(urls):
            due = BEGIN + timedelta(days=[3, 2, 9, 9, 1, 0][number])
            values = {"received_at": BEGIN + timedelta(hours=number)}
            if number != 5:
                values["due_at"] = due
            row = DeletionRequest.id == UUID(url.rpartition("/")[2])
            session.execute(update(DeletionRequest).where(row).values(values))
    return [client.get(url).json() for url in urls]


def models_of(item: dict[str, Any]) -> set[str]:
    return {item["model"], *(erasure["model"] for erasure in item["erasures"])}


def test_each_filter_lets_through_what_it_says_and_all_together_what_all_say(
    client: TestClient, several: list[dict[str, Any]]
) -> None:
    late = BEGIN + timedelta(days=1, seconds=1)
    filters: dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]] = {
        "status": (
            ["completed", "nothing_found"],
            lambda i: i["status"] in ("completed", "nothing_found"),
        ),
        "model": ("digits", lambda i: "digits" in models_of(i)),
        "client": ("shop", lambda i: i["client"] == "shop"),
        "regulation": ("ccpa", lambda i: i["regulation"] == "ccpa"),
        "reference": ("case-1", lambda i: i["reference"] == "case-1"),
        "received_from": (
            (BEGIN + timedelta(hours=1)).isoformat(),
            lambda i: i["received_at"] >= "2026-01-01T01:00:00",
        ),
        "received_to": (
            (BEGIN + timedelta(hours=4)).isoformat(),
            lambda i: i["received_at"] < "2026-01-01T04:00:00",
        ),
        "due_before": (
            late.isoformat(),
            lambda i: (
                not i["finished_at"]
                and i["due_at"] is not None
                and datetime.fromisoformat(i["due_at"]) < late
            ),
        ),
        "overdue": (
            "true",
            lambda i: (
                not i["finished_at"]
                and i["due_at"] is not None
                and datetime.fromisoformat(i["due_at"]) < datetime.now(UTC)
            ),
        ),
    }
    newest = several[::-1]
    for name, (value, lets_through) in filters.items():
        expected = [item["id"] for item in newest if lets_through(item)]
        assert [item["id"] for item in walk(client, **{name: value})] == expected, name
        # Each lets some through, and not all: else it would show nothing here.
        assert 0 < len(expected) < len(several), name
    for first, second in combinations(filters, 2):
        wanted = {name: filters[name][0] for name in (first, second)}
        both = [i["id"] for i in newest if filters[first][1](i) and filters[second][1](i)]
        page = client.get(URL, params=wanted).json()
        assert [item["id"] for item in page["items"]] == both, (first, second)


def test_the_open_ones_come_by_their_deadlines_those_without_one_last(
    client: TestClient, several: list[dict[str, Any]]
) -> None:
    open_ = [item for item in several if item["finished_at"] is None]
    listed = walk(client, order="due")
    ranked = sorted(
        open_, key=lambda item: (item["due_at"] is None, item["due_at"] or "", UUID(item["id"]))
    )
    assert [item["id"] for item in listed] == [item["id"] for item in ranked]
    assert len(listed) >= 3
    assert listed[-1]["due_at"] is None
    assert walk(client, order="due", status="completed") == []


def test_a_client_finds_no_others_by_naming_them(
    client: TestClient, several: list[dict[str, Any]]
) -> None:
    made = client.post("/v1/access-keys", json={"name": "shop", "scopes": ["erasure:read"]})
    client.headers["Authorization"] = f"Bearer {made.json()['key']}"
    own = {item["id"] for item in several if item["client"] == "shop"}
    assert {item["id"] for item in walk(client)} == own
    assert {item["id"] for item in walk(client, client="shop")} == own
    # As if there were no such client.
    assert walk(client, client="operator") == walk(client, client="nobody") == []
    assert {item["id"] for item in walk(client, order="due")} < own


def test_a_paused_request_is_not_overdue(client: TestClient, several: list[dict[str, Any]]) -> None:
    late = walk(client, overdue=True)
    with transaction() as session:
        row = DeletionRequest.id == UUID(late[0]["id"])
        session.execute(update(DeletionRequest).where(row).values(paused_at=BEGIN))
    assert [item["id"] for item in walk(client, overdue=True)] == [i["id"] for i in late[1:]]


def test_what_no_filter_can_mean_is_refused(client: TestClient) -> None:
    for wanted in (
        {"status": "lost"},
        {"regulation": "none at all"},
        {"order": "nearest"},
        {"received_from": "2026-01-01T00:00:00"},
        {"due_before": "soon"},
        {"overdue": "perhaps"},
        {"reference": "x" * 257},
        {"reference": "\0"},
        {"client": "\0"},
        {"model": "No Such Name"},
    ):
        assert client.get(URL, params=wanted).status_code == 422, wanted


def test_moments_at_the_edges_of_the_calendar_are_answered(client: TestClient) -> None:
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        for order, name in product(
            ("received", "due"), ("received_from", "received_to", "due_before")
        ):
            answer = client.get(URL, params={name: moment, "order": order})
            assert answer.status_code == 200, answer.text
        for name in ("created_from", "created_to"):
            assert client.get("/v1/jobs", params={name: moment}).status_code == 200


def test_jobs_are_filtered_by_status_model_and_time(
    client: TestClient, several: list[dict[str, Any]]
) -> None:
    jobs = walk(client, "/v1/jobs")
    assert {job["status"] for job in jobs} == {"published", "refused"}
    middle = jobs[0]["created_at"]
    for wanted, lets_through in (
        ({"status": ["refused", "queued"]}, lambda job: job["status"] == "refused"),
        ({"status": ["refused", "published"]}, lambda job: True),
        ({"model": "digits"}, lambda job: job["model"] == "digits"),
        ({"model": "letters"}, lambda job: job["model"] == "letters"),
        ({"created_from": middle}, lambda job: job["created_at"] >= middle),
        ({"created_to": middle}, lambda job: job["created_at"] < middle),
        ({"created_to": middle, "status": ["refused"]}, lambda job: False),
    ):
        expected = [job["id"] for job in jobs if lets_through(job)]
        assert [job["id"] for job in walk(client, "/v1/jobs", **wanted)] == expected, wanted
    assert client.get("/v1/jobs", params={"status": "done"}).status_code == 422


def fill() -> None:
    """Many requests: nearly all of them finished, the open ones due one after the other."""
    with transaction() as session:
        session.execute(
            text(
                """
                INSERT INTO deletion_requests (id, client, body_digest, regulation, sample_count,
                                               id_key_id, status, received_at, due_at, finished_at)
                SELECT gen_random_uuid(), 'shop-' || n % 40, '', 'gdpr', 1, '',
                       CASE WHEN n % 50 = 0 THEN 'pending' WHEN n % 53 = 0 THEN 'needs_attention'
                            ELSE 'completed' END,
                       timestamptz '2026-01-01' + n * interval '1 minute',
                       timestamptz '2026-02-01' + n * interval '1 minute',
                       CASE WHEN n % 50 = 0 OR n % 53 = 0 THEN NULL
                            ELSE timestamptz '2026-01-15' + n * interval '1 minute' END
                FROM generate_series(1, :many) AS n
                """
            ),
            {"many": MANY},
        )
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE deletion_requests"))


def test_the_lists_of_a_dashboard_read_indexes_and_not_the_table(
    environment: dict[str, str],
) -> None:
    fill()
    by_status = "ix_deletion_requests_status_received_at_id"
    of_client = "ix_deletion_requests_client_received_at_id"
    # The index, and whether it has the rows in their order, so that a page reads no others.
    for wanted, only_of, index, in_order in (
        (Filter(order=Order.DUE), None, "ix_deletion_requests_open_by_due", True),
        (Filter(due_before=SOON), None, "ix_deletion_requests_open_by_due", False),
        (Filter(statuses=[RequestStatus.NEEDS_ATTENTION]), None, by_status, True),
        (Filter(), None, "ix_deletion_requests_received_at_id", True),
        (Filter(), "shop-7", of_client, True),
        (Filter(client="shop-7"), None, of_client, True),
        (Filter(reference="case-1"), None, "ix_deletion_requests_reference", False),
        # Out of the one by status or the newest of all: whichever promises to be done sooner.
        (
            Filter(statuses=[RequestStatus.NEEDS_ATTENTION, RequestStatus.HELD]),
            None,
            "received_at_id on deletion_requests",
            False,
        ),
    ):
        cursor: str | None = None
        for _ in range(2):
            with transaction() as session:
                seen = partial(service.browse, session, wanted, cursor, 50, only_of)
                plans, page = explained(seen), seen()
            assert plans
            for plan_ in plans:
                assert "Seq Scan" not in plan_, plan_
                assert index in plan_, plan_
                assert not in_order or "Sort" not in plan_, plan_
            cursor = page.next_cursor
            if cursor is None:
                break
        # Its second page was looked at, too.
        assert (cursor is not None) == (wanted.reference is None)


def explained(act: Callable[[], Any]) -> list[str]:
    """The plans of what is sent to the database, for these very parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    act()
    event.remove(engine(), "before_cursor_execute", note)
    plans = []
    with engine().connect() as connection, connection.connection.cursor() as cursor:
        for statement, parameters in seen:
            cursor.execute("EXPLAIN " + statement, parameters)
            plans.append("\n".join(row[0] for row in cursor.fetchall()))
    return plans
