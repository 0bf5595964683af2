"""Polling is cheap: what a client has already is not sent again, and what changed is."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db import transaction
from app.tables import DeletionRequest
from tests.app.working import NOW, hold, plan, publish, renew

MUST_CARRY = ("ETag", "Cache-Control", "Vary")


@pytest.fixture
def polled(ready: Callable[..., UUID], submit: Callable[..., str]) -> dict[str, str]:
    """Every resource that clients poll, in a state that does not change by itself."""
    ready(policy=NOW)
    finished = submit("a")
    job_id = plan()[0]
    publish(hold(job_id))
    return {
        "request": finished,
        "job": f"/v1/jobs/{job_id}",
        "model": "/v1/models/digits",
        "version": "/v1/models/digits/versions/2",
        "current": "/v1/models/digits/current",
    }


def ask(client: TestClient, path: str, tags: str) -> Any:
    return client.get(path, headers={"If-None-Match": tags})


def test_what_a_client_has_is_not_sent_again(client: TestClient, polled: dict[str, str]) -> None:
    for path in polled.values():
        first = client.get(path)
        assert first.status_code == 200
        tag = first.headers["ETag"]
        carried = {name: first.headers[name] for name in MUST_CARRY}
        for tags in (tag, f"W/{tag}", f'"other", {tag}', f'W/"a,b" ,{tag}', "*"):
            again = ask(client, path, tags)
            assert (again.status_code, again.content) == (304, b""), tags
            assert {name: again.headers[name] for name in MUST_CARRY} == carried
        # Other tags, a part of this one, this one without its quotes, and in a longer text.
        for tags in ('"other"', tag[:-2] + '"', tag.strip('"'), "", f'"*", "{tag[1:-1]}x"'):
            again = ask(client, path, tags)
            assert (again.status_code, again.content) == (200, first.content), tags


def test_tags_in_several_lines_of_the_header_count_all(
    client: TestClient, polled: dict[str, str]
) -> None:
    tag = client.get(polled["job"]).headers["ETag"]
    lines = [("If-None-Match", '"other"'), ("If-None-Match", tag)]
    assert client.get(polled["job"], headers=lines).status_code == 304


def test_whatever_changes_in_an_answer_changes_its_tag(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    location = submit("a")
    seen: dict[str, Any] = {}

    def look(*paths: str) -> None:
        for path in paths:
            answer = client.get(path)
            tag = answer.headers["ETag"]
            assert seen.setdefault(tag, answer.json()) == answer.json()
            assert ask(client, path, tag).status_code in (200, 304)

    look(location, "/v1/models/digits", "/v1/models/digits/current")
    (job_id,) = plan()
    look(location, f"/v1/jobs/{job_id}")
    job = hold(job_id)
    look(location, f"/v1/jobs/{job_id}")
    renew(job)
    look(f"/v1/jobs/{job_id}")
    publish(job)
    look(location, f"/v1/jobs/{job_id}", "/v1/models/digits", "/v1/models/digits/current")
    look("/v1/models/digits/versions/1")
    # Different answers have different tags, each of which was given to one answer alone.
    assert len({json.dumps(body, sort_keys=True) for body in seen.values()}) == len(seen)
    assert len(seen) >= 12


def test_a_tag_is_of_what_is_shown_now_and_not_of_when_it_was_asked(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=["a"])
    location = submit("a")
    tag = client.get(location).headers["ETag"]
    assert ask(client, location, tag).status_code == 304
    # A day less is left.
    with transaction() as session:
        session.execute(
            update(DeletionRequest).values(due_at=DeletionRequest.due_at - timedelta(days=1))
        )
    changed = ask(client, location, tag)
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


def test_an_open_request_says_when_to_ask_again_also_if_nothing_changed(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str], polled: Any
) -> None:
    location = submit("b")
    first = client.get(location)
    again = ask(client, location, first.headers["ETag"])
    assert again.status_code == 304
    for answer in (first, again):
        assert 1 <= int(answer.headers["Retry-After"]) <= 3_600
    assert "Retry-After" not in ask(client, polled["request"], "*").headers


def test_nobody_is_told_by_a_tag_that_a_foreign_request_is_there(
    client: TestClient, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    location = submit("zzz")
    created = client.post("/v1/access-keys", json={"name": "shop", "scopes": ["erasure:read"]})
    headers = {"Authorization": f"Bearer {created.json()['key']}", "If-None-Match": "*"}
    answer = client.get(location, headers=headers)
    assert answer.status_code == 404
    assert "ETag" not in answer.headers


def test_the_description_has_the_header_the_tag_and_the_304(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in (
        *("/v1/deletion-requests/{request_id}", "/v1/jobs/{job_id}", "/v1/models/{name}"),
        *("/v1/models/{name}/current", "/v1/models/{name}/versions/{number}"),
    ):
        spec = paths[path]["get"]
        assert "if-none-match" in {each["name"].lower() for each in spec["parameters"]}
        for code in ("200", "304"):
            assert {*MUST_CARRY, "Retry-After"} == spec["responses"][code]["headers"].keys()
        assert "content" not in spec["responses"]["304"]
        schema = spec["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("Answer")
