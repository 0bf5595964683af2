"""Those who run a model are registered, each with a secret that is shown once."""

import base64
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from tests.app.purges import entries
from tests.app.recalls import RECIPIENTS, URL, Office
from tests.app.working import NOW


@pytest.fixture
def office(client: TestClient, ready: Callable[..., UUID]) -> Office:
    """With a model called digits, trained on `a` to `d`, whose every request is due at once."""
    ready("digits", ["a", "b", "c", "d"], NOW)
    return Office(client)


def test_a_recipient_is_registered_and_its_secret_shown_this_once(office: Office) -> None:
    answer = office.http.post(RECIPIENTS.format("digits"), json={"name": "web", "url": URL})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/models/digits/recipients/{made['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert made["secret"].startswith("whsec_")
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"), validate=True)) == 32
    other = office.register("app", URL)
    assert other["secret"] != made["secret"]
    shown = office.http.get(answer.headers["Location"])
    assert shown.json() == {key: made[key] for key in made.keys() - {"secret"}}
    listed = office.http.get(RECIPIENTS.format("digits"))
    assert [each["name"] for each in listed.json()["items"]] == ["app", "web"]
    assert "whsec_" not in shown.text + listed.text
    without_url = office.register("asks by itself")
    assert (without_url["url"], without_url["secret"]) == (None, None)
    assert [each["facts"] for each in entries("recipient.registered")] == 3 * [
        {"model": str(office.model_id())}
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": ""}, 422),
        ({"name": "n" * 201}, 422),
        ({"name": "nul \0"}, 422),
        ({"name": "web", "uri": URL}, 422),
        ({"name": "web", "url": "http://checkout.example.com/"}, 422),
        ({"name": "web", "url": "https://10.0.0.1/"}, 422),
        ({"name": "web", "url": "https://a.example/" + "x" * 2_000}, 422),
    ],
)
def test_what_is_no_recipient_is_refused(office: Office, body: dict[str, str], status: int) -> None:
    answer = office.http.post(RECIPIENTS.format("digits"), json=body)
    assert answer.status_code == status
    if "url" in body and len(body["url"]) < 2_000:
        assert answer.json()["type"] == "urn:lethe:problem:address-refused"
        assert "example" not in answer.text
        assert "10.0" not in answer.text
    assert office.http.get(RECIPIENTS.format("digits")).json()["items"] == []


def test_what_is_unknown_is_not_found(office: Office) -> None:
    mine = office.register("web")["id"]
    unknown = uuid4()
    for verb, url in (
        ("POST", RECIPIENTS.format("none")),
        ("GET", RECIPIENTS.format("none")),
        ("GET", f"/v1/models/none/recipients/{mine}"),
        ("GET", f"/v1/models/digits/recipients/{unknown}"),
        ("DELETE", f"/v1/models/digits/recipients/{unknown}"),
        ("GET", f"/v1/models/digits/recipients/{unknown}/notices"),
        ("GET", f"/v1/notices/{unknown}"),
        ("POST", f"/v1/notices/{unknown}/acknowledgement"),
    ):
        body = {"name": "web"} if url.endswith("recipients") else {"by": "me"}
        answer = office.http.request(verb, url, json=body if verb == "POST" else None)
        assert answer.status_code == 404, url


def test_a_recipient_of_another_model_is_not_found_under_this_one(
    office: Office, ready: Callable[..., UUID]
) -> None:
    ready("other", ["x"], NOW)
    others = office.register("web", model="other")["id"]
    assert office.http.get(f"/v1/models/digits/recipients/{others}").status_code == 404
    assert office.http.delete(f"/v1/models/digits/recipients/{others}").status_code == 404
    assert office.http.get(f"/v1/models/other/recipients/{others}").status_code == 200


def test_a_name_is_taken_until_its_recipient_is_removed(office: Office) -> None:
    first = office.register("web")["id"]
    again = office.http.post(RECIPIENTS.format("digits"), json={"name": "web"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:lethe:problem:conflict")
    where = f"{RECIPIENTS.format('digits')}/{first}"
    assert [office.http.delete(where).status_code for _ in range(2)] == [204, 204]
    assert len(entries("recipient.removed")) == 1
    second = office.register("web")["id"]
    of = RECIPIENTS.format("digits")
    assert [each["id"] for each in office.http.get(of).json()["items"]] == [second]
    everybody = office.http.get(of, params={"removed": True}).json()["items"]
    assert [each["id"] for each in everybody] == [second, first]
    assert office.http.get(where).json()["removed_at"] is not None
