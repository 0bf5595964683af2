"""What holds for every route: closed by default, problems for errors, a complete description."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.security import OPEN_PATHS

KEY = "Authorization"
DECISIONS = ("/approve", "/reject", "/reopen", "/extend", "/pause", "/resume", "/confirm")


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(path, verb, spec) for path, verbs in paths.items() for verb, spec in verbs.items()]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {KEY: "Bearer wrong"},
        {KEY: "Bearer "},
        {KEY: "Basic dGVzdA=="},
        {KEY: "Bearer ä"},
        {KEY: "test-api-key-" + "a" * 32},
    ],
)
def test_every_route_is_closed_without_the_key(client: TestClient, headers: dict[str, str]) -> None:
    listed = operations(client)
    assert len(listed) > 15
    client.headers.pop(KEY)
    raw = {name: value.encode() for name, value in headers.items()}
    for path, verb, _ in [*listed, ("/nowhere", "get", {}), ("/docs/x", "get", {})]:
        if path in OPEN_PATHS:
            continue
        url = path.replace("{name}", "a").replace("{number}", "1")
        answer = client.request(verb, url, headers=raw, content=b"{not json")  # type: ignore[arg-type]
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["type"] == "urn:lethe:problem:unauthorized"


@pytest.mark.parametrize(
    ("verb", "url", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models/none/current", 404),
        ("GET", "/v1/models/none/versions", 404),
        ("GET", "/v1/models/none/versions/1/weights", 404),
        ("GET", "/v1/jobs/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11", 404),
        ("GET", "/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11", 404),
        ("GET", "/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11/receipt", 404),
        ("GET", "/v1/checkpoints/sha256:" + "0" * 64, 404),
        ("GET", "/v1/jobs/x", 422),
        ("GET", "/v1/models/none/versions/0", 422),
        ("GET", "/v1/models/none/versions/99999999999999999999", 422),
        ("GET", "/v1/deletion-requests?limit=0", 422),
        ("GET", "/v1/deletion-requests?limit=1000", 422),
        ("GET", "/v1/audit/entries?start=-1", 422),
        ("GET", "/v1/audit/entries?start=99999999999999999999", 422),
        ("DELETE", "/v1/deletion-requests", 405),
        ("PUT", "/v1/models", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_every_error_is_a_problem(client: TestClient, verb: str, url: str, status: int) -> None:
    answer = client.request(verb, url)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:lethe:problem:")
    assert problem["title"]
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("/v1/models", {"GET", "POST"}),
        ("/v1/models/none", {"GET"}),
        ("/v1/models/none/recipients/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11", {"DELETE", "GET"}),
        ("/v1/deletion-requests/6f1f0f3e-3f0c-4e0e-9f5b-1d3c8f6c2a11/cancel", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_all_the_right_ones(
    client: TestClient, url: str, allowed: set[str]
) -> None:
    answer = client.request("PATCH", url)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_an_error_nobody_foresaw_is_a_problem_that_quotes_nothing(
    capfd: pytest.CaptureFixture[str],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("MARKED-sample-ID")

    monkeypatch.setattr("app.deletions.storing.submit_all", fail)
    answer = client.post("/v1/deletion-requests", json={"sample_ids": ["MARKED-sample-ID"]})
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:lethe:problem:internal"
    logged = "".join(capfd.readouterr())
    assert "request.failed" in logged
    assert "MARKED" not in answer.text + logged


def test_the_description_names_every_answer_with_an_example(client: TestClient) -> None:
    for path, verb, spec in operations(client):
        assert spec.get("description"), (verb, path)
        codes = set(spec["responses"])
        if path not in OPEN_PATHS:
            assert {"401", "503"} <= codes, (verb, path)
            assert spec["security"], (verb, path)
        for code, answer in spec["responses"].items():
            if int(code) >= 400 and path not in OPEN_PATHS:
                content = answer["content"]["application/problem+json"]
                assert content["examples"], (verb, path, code)
        if verb == "post":
            # What is decided, withdrawn or acknowledged is so when it is answered; all else is
            # made, or begins.
            done = path.endswith(("/cancel", "/acknowledgement", ":bulk", *DECISIONS))
            assert codes & ({"200"} if done else {"201", "202"}), path


def test_health_needs_no_key(client: TestClient, ready: Callable[..., Any]) -> None:
    client.headers.pop(KEY)
    assert client.get("/healthz").json() == {"status": "ok"}
    parts = dict.fromkeys(("database", "broker", "log"), "ok")
    assert client.get("/readyz").json() == {"status": "ready", **parts}


def test_a_database_without_tables_is_not_ready(
    client: TestClient, reread: Callable[[str, str], None], servers: Any
) -> None:
    url = servers.create_database("test_empty")
    try:
        reread("LETHE_DATABASE_URL", url)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "not migrated")
    finally:
        reread("LETHE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
        servers.drop_database("test_empty")
