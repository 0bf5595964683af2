"""Requests and models that are being checked, or were rejected."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

URL = "/v1/deletion-requests"


def test_a_request_that_came_during_a_models_check_reaches_the_model(
    client: TestClient, register: Callable[..., Any], accept: Callable[..., None]
) -> None:
    model_id = register("late")
    answer = client.post(URL, json={"sample_ids": ["a"]})
    assert answer.json()["status"] == "pending"
    accept(model_id, ["a", "b"])
    body = client.get(answer.headers["Location"]).json()
    assert [(e["model"], e["status"]) for e in body["erasures"]] == [("late", "pending")]


def test_a_request_awaits_no_model_that_was_rejected(
    client: TestClient, register: Callable[..., Any], reject: Callable[..., None]
) -> None:
    model_id = register("late")
    answer = client.post(URL, json={"sample_ids": ["a"]})
    reject(model_id, {"code": "x", "message": "y"})
    assert client.get(answer.headers["Location"]).json()["status"] == "nothing_found"


def test_a_request_awaits_no_model_that_was_registered_after_it(
    client: TestClient, register: Callable[..., Any], reject: Callable[..., None]
) -> None:
    first = register("first")
    answer = client.post(URL, json={"sample_ids": ["a"]})
    register("second")
    reject(first, {"code": "x", "message": "y"})
    assert client.get(answer.headers["Location"]).json()["status"] == "nothing_found"


def test_a_request_that_names_a_model_which_was_rejected_is_refused_and_not_stored(
    client: TestClient, register: Callable[..., Any], reject: Callable[..., None]
) -> None:
    reject(register("late"), {"code": "x", "message": "y"})
    answer = client.post(URL, json={"sample_ids": ["a"], "model": "late"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:lethe:problem:conflict"
    assert client.get(URL).json()["items"] == []
