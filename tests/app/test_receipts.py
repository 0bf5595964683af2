"""A finished request's receipt holds before an auditor who has the key alone."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app import keys
from app.db import transaction
from app.jobs import publication
from app.jobs.publication import NewVersion
from app.tables import DeletionRequest, ModelVersion
from lethe.verify.reasons import NotProven
from lethe.verify.receipt import Verified, verify_receipt
from tests.app.working import NOW, PASSED, hold, plan, publish

REQUESTS = "/v1/deletion-requests"


def submit(client: TestClient, *samples: str, **more: Any) -> str:
    answer = client.post(REQUESTS, json={"sample_ids": samples, **more})
    request_id: str = answer.json()["id"]
    return request_id


def forget(client: TestClient, *samples: str, guarantee: str = "approximate") -> str:
    request = submit(client, *samples)
    for job_id in plan():
        publish(hold(job_id), guarantee)
    return request


def receipt(client: TestClient, request: str) -> bytes:
    answer = client.get(f"{REQUESTS}/{request}/receipt")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.content


def statement(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(content)["envelope"]["payload"]))
    return found


def verified(content: bytes) -> Verified:
    return verify_receipt(content, [keys.log_key().public])


def test_a_receipt_proves_who_was_forgotten_in_which_version(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    model = ready("digits", ["a", "b", "c"], NOW)
    request = forget(client, "a", "stranger")
    content = receipt(client, request)
    verified(content)
    said = statement(content)
    (version,) = client.get("/v1/models/digits/versions").json()["items"][1:]
    assert said["subject"] == [
        {
            "name": "models/digits/versions/2",
            "digest": {"sha256": version["digest"].removeprefix("sha256:")},
        }
    ]
    told = said["predicate"]
    assert told["request"]["id"] == request
    assert told["request"]["samples"] == sorted(digest(s).hex() for s in ("a", "stranger"))
    assert told["erasures"] == [
        {
            "model": str(model),
            "name": "digits",
            "status": "completed",
            "version": 2,
            "forgotten": [{"sample": digest("a").hex(), "version": 2}],
        }
    ]
    (facts,) = told["versions"]
    assert facts["digest"] == version["digest"]
    assert facts["method"] == "iau"
    assert facts["parameters"]["rule"] == "adam"
    assert facts["commitment"]["retained"] == 2
    assert any("pseudonym" in sentence for sentence in told["not_shown"])


def test_a_receipt_is_canonical_and_another_one_is_as_good(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    request = forget(client, "a")
    first, second = receipt(client, request), receipt(client, request)
    for content in (first, second):
        verified(content)
    assert statement(first)["predicate"]["request"] == statement(second)["predicate"]["request"]


def test_samples_that_several_versions_forgot_are_each_proven(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["a", "b", "c", "d"], NOW)
    ready("faces", ["a", "e"], NOW)
    forget(client, "a")
    request = forget(client, "a", "b", "c")
    content = receipt(client, request)
    verified(content)
    told = statement(content)["predicate"]
    assert [(v["model_name"], v["number"]) for v in told["versions"]] in (
        [("digits", 2), ("digits", 3), ("faces", 2)],
        [("faces", 2), ("digits", 2), ("digits", 3)],
    )
    by_model = {erasure["name"]: erasure for erasure in told["erasures"]}
    assert {each["sample"]: each["version"] for each in by_model["digits"]["forgotten"]} == {
        digest("a").hex(): 2,
        digest("b").hex(): 3,
        digest("c").hex(): 3,
    }


def test_what_was_forgotten_before_is_proven_by_the_version_that_did(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    forget(client, "a")
    forget(client, "b")
    again = submit(client, "a")
    content = receipt(client, again)
    verified(content)
    (erasure,) = statement(content)["predicate"]["erasures"]
    assert erasure["version"] == 3
    assert [each["version"] for each in erasure["forgotten"]] == [2]


def test_nothing_found_has_a_receipt_about_the_log_alone(client: TestClient) -> None:
    request = submit(client, "stranger")
    content = receipt(client, request)
    verified(content)
    said = statement(content)
    assert said["predicate"]["versions"] == []
    assert said["subject"][0]["name"] == f"requests/{request}"
    last = json.loads(content)["log"]["entries"][-1]["entry"]
    leaf = hashlib.sha256(b"\0" + last.encode()).hexdigest()
    assert said["subject"][0]["digest"] == {"sha256": leaf}


def test_a_withdrawn_request_says_so(client: TestClient, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a", "b"], NOW)
    request = submit(client, "a")
    assert client.post(f"{REQUESTS}/{request}/cancel").status_code == 200
    content = receipt(client, request)
    verified(content)
    assert statement(content)["predicate"]["request"]["status"] == "cancelled"


def test_what_others_had_forgotten_after_a_withdrawal_is_not_claimed_by_it(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    withdrawn = submit(client, "a")
    assert client.post(f"{REQUESTS}/{withdrawn}/cancel").status_code == 200
    forget(client, "a")
    content = receipt(client, withdrawn)
    verified(content)
    (erasure,) = statement(content)["predicate"]["erasures"]
    assert (erasure["status"], erasure["forgotten"]) == ("cancelled", [])


def test_a_request_under_way_has_no_receipt(client: TestClient, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a"], NOW)
    assert client.get(f"{REQUESTS}/{submit(client, 'a')}/receipt").status_code == 409


def test_a_receipt_names_nobody_who_stays(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["a", "b", "c"], NOW)
    mine, other = submit(client, "a"), submit(client, "b")
    for job_id in plan():
        publish(hold(job_id))
    content = receipt(client, mine) + base64.b64decode(
        json.loads(receipt(client, mine))["envelope"]["payload"]
    )
    assert digest("a").hex().encode() in content
    assert other.encode() not in content
    for stays in ("b", "c"):
        assert digest(stays).hex().encode() not in content


def test_the_log_names_no_samples_and_commits_to_those_of_each_request(
    client: TestClient, ready: Callable[..., UUID], digest: Callable[[str], bytes]
) -> None:
    ready("digits", ["a"], NOW)
    request = submit(client, "a")
    entries = client.get("/v1/audit/entries", params={"subject": request}).json()["items"]
    facts = json.loads(entries[0]["entry"])["facts"]
    assert len(facts["samples_commitment"]) == 64
    everything = client.get("/v1/audit/entries").text
    assert digest("a").hex() not in everything
    # Equal samples of two requests cannot be told to be equal.
    again = submit(client, "a")
    entries = client.get("/v1/audit/entries", params={"subject": again}).json()["items"]
    other = json.loads(entries[0]["entry"])["facts"]["samples_commitment"]
    assert other != facts["samples_commitment"]


def test_a_salt_that_was_changed_afterwards_is_found_out(client: TestClient) -> None:
    request = submit(client, "stranger")
    with transaction() as session:
        session.execute(update(DeletionRequest).values(samples_salt=bytes(32)))
    with pytest.raises(NotProven, match="samples"):
        verified(receipt(client, request))


def test_a_request_from_before_there_were_salts_has_a_receipt(client: TestClient) -> None:
    request = submit(client, "stranger")
    with transaction() as session:
        session.execute(update(DeletionRequest).values(samples_salt=None))
    # This one's log entry has a commitment, which is left unopened: refused.
    with pytest.raises(NotProven):
        verified(receipt(client, request))


def test_a_manifest_that_was_changed_publishes_nothing(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    submit(client, "a")
    (job_id,) = plan()
    job = hold(job_id)
    with transaction() as session:
        session.execute(update(ModelVersion).values(commitment_root=bytes(31) + b"1"))
    with pytest.raises(RuntimeError, match="manifest"):
        publish(job)


def test_a_version_whose_parent_never_committed_can_be_published(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    with transaction() as session:
        session.execute(update(ModelVersion).values(commitment_root=None, retained_count=None))
    request = forget(client, "a")
    told = statement(receipt(client, request))["predicate"]["versions"]
    assert told[0]["commitment"]["removed"] == 1


def test_a_rebase_removes_nobody(client: TestClient, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a", "b", "c"], NOW)
    forget(client, "a")
    first = client.get("/v1/models/digits/versions/2/deletions").json()
    request = forget(client, "b", guarantee="exact")
    verified(receipt(client, request))
    assert first["retained"] == 2


def test_weights_that_two_versions_share_are_told_apart(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    ready("faces", ["a"], NOW)
    request = submit(client, "a")
    digest = "sha256:" + "ab" * 32
    for job_id in plan():
        job = hold(job_id)
        with transaction() as session:
            new = NewVersion(digest, 1, "iau", "approximate", "passed", 0.1)
            publication.publish(session, job, new, [PASSED])
    content = receipt(client, request)
    verified(content)
    assert len(statement(content)["predicate"]["versions"]) == 2
