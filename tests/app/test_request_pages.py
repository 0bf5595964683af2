"""Deletion requests are listed in pages, by status, and with no cursor but the API's own."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

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
