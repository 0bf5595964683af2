"""What a controller is refused by OpenDSR, and in which words."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.tables import DeletionRequest
from tests.app.controllers import (
    DOMAIN,
    MARK,
    Controller,
    Reread,
    asking,
    changed,
    set_up,
    without,
)

Ready = Callable[..., UUID]


@pytest.fixture
def controller(
    reread: Reread, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Controller]:
    with set_up(reread, tmp_path):
        yield Controller(request.getfixturevalue("client"))


def stored() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(DeletionRequest)) or 0


BODY = asking("a", "b", status_callback_urls=["https://controller.example.com/x"])


OTHERS = {
    "a sample less": without(BODY, "subject_identities") | asking("a"),
    "another sample": changed(BODY, "subject_identities", 1, "identity_value", to="c"),
    "another regulation": {**BODY, "regulation": "ccpa"},
    "another time": {**BODY, "submitted_time": "2026-10-02T15:00:01Z"},
    "another callback": {**BODY, "status_callback_urls": ["https://controller.example.com/y"]},
    "no callback": without(BODY, "status_callback_urls"),
    "a version": {**BODY, "api_version": "2.0"},
    "one model": {**BODY, "extensions": {DOMAIN: {"model": "digits"}}},
}


def test_an_id_that_came_with_another_body_is_refused(controller: Controller, ready: Ready) -> None:
    ready()
    first = controller.ask(BODY)
    id_ = BODY["subject_request_id"]
    for name, other in OTHERS.items():
        answer = controller.ask({**other, "subject_request_id": id_}, 400)
        [detail] = answer["error"]["errors"]
        assert detail["reason"] == "idempotency-key-reused", name
        assert "subject_request_id" in detail["message"]
    assert stored() == 1
    assert controller.ask(BODY)["received_time"] == first["received_time"]


def identity(**chosen: str) -> dict[str, Any]:
    made = asking(MARK)
    return changed(made, "subject_identities", 0, to={**made["subject_identities"][0], **chosen})


def extended(extension: Any) -> dict[str, Any]:
    return without(asking(extensions={DOMAIN: extension}), "subject_identities")


MARKED = asking(MARK)


REFUSED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "malformed JSON": (f'{{"regulation": "{MARK}'.encode(), "malformed"),
    "not UTF-8": (b'{"regulation": "\xff"}', "malformed"),
    "nothing": (b"", "invalid-request"),
    "no object": (f'["{MARK}"]'.encode(), "invalid-request"),
    **{f"without {member}": (without(MARKED, member), "invalid-request") for member in MARKED},
    "access": ({**MARKED, "subject_request_type": "access"}, "invalid-request"),
    "portability": ({**MARKED, "subject_request_type": "portability"}, "invalid-request"),
    "an unknown type": ({**MARKED, "subject_request_type": MARK}, "invalid-request"),
    "an unknown regulation": ({**MARKED, "regulation": MARK}, "invalid-request"),
    "no regulation that it knows": ({**MARKED, "regulation": "none"}, "invalid-request"),
    "an upper-case id": (
        {**MARKED, "subject_request_id": MARKED["subject_request_id"].upper()},
        "invalid-request",
    ),
    "an id of version 1": (
        {**MARKED, "subject_request_id": "a7551968-d5d6-14b2-9831-815ac9017798"},
        "invalid-request",
    ),
    "a hashed identity": (identity(identity_format="sha256"), "invalid-request"),
    "an address": (identity(identity_type="email"), "invalid-request"),
    "an unknown kind of identity": (identity(identity_type=MARK), "invalid-request"),
    "an empty identity": (identity(identity_value=""), "invalid-request"),
    "a long identity": (identity(identity_value=MARK * 17), "invalid-request"),
    "a lone surrogate": (
        json.dumps(MARKED).replace(MARK, MARK + "\\ud800").encode(),
        "invalid-request",
    ),
    "no identities": (asking(), "invalid-request"),
    "too many of them": (asking(*(f"{MARK}{i}" for i in range(10_001))), "invalid-request"),
    "too many in two places": (
        asking(*(f"{MARK}{i}" for i in range(10_000)), extensions={DOMAIN: {"sample_ids": [MARK]}}),
        "invalid-request",
    ),
    "a time without an offset": (
        {**MARKED, "submitted_time": "2026-10-02T15:00:00"},
        "invalid-request",
    ),
    "a time as a number": ({**MARKED, "submitted_time": 1790000000}, "invalid-request"),
    "a day alone": ({**MARKED, "submitted_time": "2026-10-02"}, "invalid-request"),
    "a day that is none": (
        {**MARKED, "submitted_time": "2026-02-30T15:00:00Z"},
        "invalid-request",
    ),
    "a time before all calendars": (
        {**MARKED, "submitted_time": "0001-01-01T00:00:00+14:00"},
        "invalid-request",
    ),
    "a version to come": ({**MARKED, "api_version": "3.0"}, "invalid-request"),
    "a callback over plain HTTP": (
        {**MARKED, "status_callback_urls": [f"http://{MARK}.example.com/"]},
        "address-refused",
    ),
    "a callback to a private network": (
        {**MARKED, "status_callback_urls": [f"https://10.0.0.1/{MARK}"]},
        "address-refused",
    ),
    "a callback to a cloud's metadata": (
        {**MARKED, "status_callback_urls": [f"https://169.254.169.254/{MARK}"]},
        "address-refused",
    ),
    "six callbacks": (
        {**MARKED, "status_callback_urls": [f"https://example.com/{i}" for i in range(6)]},
        "invalid-request",
    ),
    "a callback twice": (
        {**MARKED, "status_callback_urls": ["https://example.com/"] * 2},
        "invalid-request",
    ),
    "extensions that are none": ({**MARKED, "extensions": [MARK]}, "invalid-request"),
    "an extension that is none": (extended(MARK), "invalid-request"),
    "an extension with what it does not know": (extended({MARK: 1}), "invalid-request"),
    "an extension without a sample": (extended({"model": "digits"}), "invalid-request"),
    "an extension with a bad sample": (extended({"sample_ids": [MARK + "\0"]}), "invalid-request"),
    "an unknown model": (
        extended({"sample_ids": [MARK], "model": "marked"}),
        "unknown-model",
    ),
    "samples in another's extension": (
        asking(extensions={"other.example.com": {"sample_ids": [MARK]}}),
        "invalid-request",
    ),
}


def test_what_cannot_be_accepted_is_refused_in_opendsrs_words_and_never_quoted(
    capfd: pytest.CaptureFixture[str], controller: Controller, ready: Ready
) -> None:
    ready(samples=["a"])
    for name, (body, reason) in REFUSED.items():
        answer = controller.ask(body, 400)
        error = answer["error"]
        assert set(error) == {"code", "message", "errors"}
        assert error["code"] == 400
        assert error["message"]
        said = [(each["domain"], each["reason"]) for each in error["errors"]]
        assert set(said) == {("urn:lethe:problem", reason)}, name
        assert all(each["message"] for each in error["errors"])
        # The same as everywhere else in the service.
        assert (answer["type"], answer["status"]) == (f"urn:lethe:problem:{reason}", 400)
        assert MARK not in json.dumps(answer), name
        assert MARK not in "".join(capfd.readouterr()), name
        assert stored() == 0, name
    # None of them is refused for another's fault.
    controller.ask(MARKED)


def test_each_thing_that_is_wrong_is_named_with_its_place(controller: Controller) -> None:
    body = changed(MARKED, "subject_identities", 0, "identity_format", to="md5")
    answer = controller.ask({**without(body, "regulation"), "submitted_time": "x"}, 400)
    places = {each["message"].partition(":")[0] for each in answer["error"]["errors"]}
    assert places == {
        "/body/regulation",
        "/body/submitted_time",
        "/body/subject_identities/0/identity_format",
    }
