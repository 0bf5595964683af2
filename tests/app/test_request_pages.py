"""Deletion requests are listed in pages that hold still, with no cursor but the API's own."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update

from app.db import transaction
from app.tables import DeletionRequest
from tests.app.withdrawals import Desk

URL = "/v1/deletion-requests"


def test_requests_are_listed_newest_first_in_pages_that_inserts_do_not_shift(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a"])
    ids = [client.post(URL, json={"sample_ids": ["a"]}).json()["id"] for _ in range(5)]
    page = client.get(URL, params={"limit": 2}).json()
    client.post(URL, json={"sample_ids": ["a"]})
    listed = [item["id"] for item in page["items"]]
    while page["next_cursor"]:
        page = client.get(URL, params={"limit": 2, "cursor": page["next_cursor"]}).json()
        listed += [item["id"] for item in page["items"]]
    assert listed == ids[::-1]


def test_requests_are_filtered_by_status(client: TestClient, ready: Callable[..., Any]) -> None:
    ready(samples=["a"])
    client.post(URL, json={"sample_ids": ["a"]})
    nothing = client.post(URL, json={"sample_ids": ["z"]}).json()
    items = client.get(URL, params={"status": "nothing_found"}).json()["items"]
    assert [item["id"] for item in items] == [nothing["id"]]
    assert client.get(URL, params={"status": "lost"}).status_code == 422


@pytest.mark.parametrize("cursor", ["x", "bm8", "W10", "WzEsMl0", "äöü", "!" * 100])
def test_a_cursor_of_ones_own_making_is_refused(client: TestClient, cursor: str) -> None:
    answer = client.get(URL, params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:lethe:problem:invalid-cursor"


def test_pages_of_one_status_hold_still_while_requests_come_and_change_theirs(
    client: TestClient, ready: Callable[..., Any], desk: Desk
) -> None:
    ready(samples=["a"])
    ids = [client.post(URL, json={"sample_ids": ["a"]}).json()["id"] for _ in range(7)]
    params = {"limit": 2, "status": "pending"}
    page = client.get(URL, params=params).json()
    listed = [item["id"] for item in page["items"]]
    # One that was listed, the last of the page, by whose place the next one begins; and one that
    # was not.
    for number in (6, 5, 2):
        desk.cancel(f"{URL}/{ids[number]}")
    client.post(URL, json={"sample_ids": ["a"]})
    while page["next_cursor"]:
        page = client.get(URL, params={**params, "cursor": page["next_cursor"]}).json()
        listed += [item["id"] for item in page["items"]]
    assert listed == [ids[number] for number in (6, 5, 4, 3, 1, 0)]


def test_pages_by_deadline_hold_still_while_requests_come(
    client: TestClient, ready: Callable[..., Any], desk: Desk
) -> None:
    ready(samples=["a"])

    def ask(regulation: str) -> str:
        body = {"sample_ids": ["a"], "regulation": regulation}
        return str(client.post(URL, json=body).json()["id"])

    asked = [ask(law) for law in ("none", "ccpa", "gdpr", "none", "gdpr", "gdpr", "none")]
    # Three have one deadline, so that a page ends between two of them.
    with transaction() as session:
        due_at = func.date_trunc("day", DeletionRequest.due_at)
        session.execute(update(DeletionRequest).values(due_at=due_at))
    params = {"limit": 2, "order": "due"}
    page = client.get(URL, params=params).json()
    listed = [item["id"] for item in page["items"]]
    late = {ask(law) for law in ("gdpr", "ccpa", "none")}
    desk.cancel(f"{URL}/{listed[1]}")
    while page["next_cursor"]:
        page = client.get(URL, params={**params, "cursor": page["next_cursor"]}).json()
        listed += [item["id"] for item in page["items"]]
    # Those that came meanwhile stand at their places, if these come later.
    walked = [id_ for id_ in listed if id_ not in late]
    assert set(walked[:3]) == {asked[2], asked[4], asked[5]}
    assert walked[3] == asked[1]
    assert set(walked[4:]) == {asked[0], asked[3], asked[6]}
    assert len(set(listed)) == len(listed)


def test_a_cursor_is_good_for_its_own_order_alone(
    client: TestClient, ready: Callable[..., Any]
) -> None:
    ready(samples=["a"])
    for _ in range(2):
        client.post(URL, json={"sample_ids": ["a"]})
    cursors = {
        order: client.get(URL, params={"order": order, "limit": 1}).json()["next_cursor"]
        for order in ("received", "due")
    }
    for order, other in (("received", "due"), ("due", "received")):
        assert client.get(URL, params={"order": order, "cursor": cursors[order]}).status_code == 200
        answer = client.get(URL, params={"order": order, "cursor": cursors[other]})
        assert answer.json()["type"] == "urn:lethe:problem:invalid-cursor"
