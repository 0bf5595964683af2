"""Which deletions are in a version, and which versions a sample was ever in."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

from app.db import transaction
from app.registry import checking
from tests.app.working import NOW, hold, plan, publish


def submit(client: TestClient, *samples: str) -> str:
    answer = client.post("/v1/deletion-requests", json={"sample_ids": samples})
    request_id: str = answer.json()["id"]
    return request_id


def forget(client: TestClient, *samples: str) -> str:
    request = submit(client, *samples)
    publish(hold(*plan()))
    return request


def versions(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/models/digits/versions").json()["items"]
    return found


def deletions(client: TestClient, number: int, **more: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/models/digits/versions/{number}/deletions", params=more)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_version_includes_its_deletions_and_those_before_it(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b", "c", "d"], NOW)
    first, second = forget(client, "a"), forget(client, "b", "c")
    assert deletions(client, 1)["items"] == []
    assert [each["request"] for each in deletions(client, 2)["items"]] == [first]
    newest = deletions(client, 3)
    assert [each["request"] for each in newest["items"]] == [second, first]
    assert [each["forgotten_in"]["number"] for each in newest["items"]] == [3, 2]
    assert [each["sample_count"] for each in newest["items"]] == [2, 1]
    assert [deletions(client, number)["retained"] for number in (1, 2, 3)] == [4, 3, 1]
    roots = [deletions(client, number)["commitment"] for number in (1, 2, 3)]
    assert len(set(roots)) == 3


def test_deletions_come_in_pages(client: TestClient, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a", "b", "c", "d"], NOW)
    requests = [forget(client, sample) for sample in "abc"]
    first = deletions(client, 4, limit=2)
    rest = deletions(client, 4, limit=2, cursor=first["next_cursor"])
    found = [each["request"] for each in first["items"] + rest["items"]]
    assert found == requests[::-1]
    assert rest["next_cursor"] is None


def test_a_sample_is_in_the_versions_before_the_one_that_forgot_it(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["a", "b", "c"], NOW)
    ready("faces", ["a"], NOW)
    submit(client, "b")
    publish(hold(*plan()))
    submit(client, "c")
    publish(hold(*plan()))
    chain = versions(client)

    def ask(sample: str, **more: str) -> list[dict[str, Any]]:
        answer = client.get(f"/v1/samples/{digest(sample).hex()}", params=more)
        assert answer.status_code == 200
        found: list[dict[str, Any]] = answer.json()["models"]
        return found

    assert [(each["model"], each["in_current"]) for each in ask("a")] == [
        ("digits", True),
        ("faces", True),
    ]
    (gone,) = ask("b")
    assert gone["in_current"] is False
    assert gone["forgotten_in"]["number"] == 2
    was_in = [ask("b", version=each["digest"])[0]["in_version"] for each in chain]
    assert was_in == [True, False, False]
    was_in = [ask("c", version=each["digest"])[0]["in_version"] for each in chain]
    assert was_in == [True, True, False]
    of_faces = {each["model"]: each["in_version"] for each in ask("a", version=chain[0]["digest"])}
    assert of_faces == {"digits": True, "faces": None}
    assert ask("nobody") == []


def test_a_version_that_nobody_knows_is_not_guessed_about(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["a"], NOW)
    path = f"/v1/samples/{digest('a').hex()}"
    unknown = client.get(path, params={"version": "sha256:" + "0" * 64})
    assert unknown.status_code == 404
    assert client.get("/v1/samples/not-a-digest").status_code == 422
    assert client.get("/v1/models/digits/versions/2/deletions").status_code == 404


def test_a_model_in_check_holds_nothing_yet(
    client: TestClient, register: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    model_id = register("digits")
    with transaction() as session:
        check = checking.start_check(session, model_id, timedelta(minutes=1))
        assert check is not None
        checking.replace_manifest(session, check, [digest("a")])
    answer = client.get(f"/v1/samples/{digest('a').hex()}")
    assert answer.json() == {"models": []}
