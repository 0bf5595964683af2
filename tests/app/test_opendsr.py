"""What a controller gets that asks by OpenDSR."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import rfc8785
from dateutil.relativedelta import relativedelta
from sqlalchemy import func, select

from app.db import transaction
from app.statuses import DenialReason, RequestStatus
from app.tables import DeletionRequest, RequestedSample
from tests.app import working
from tests.app.controllers import (
    DOMAIN,
    MARK,
    Controller,
    Reread,
    asking,
    set_up,
    without,
)
from tests.app.working import NOW

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


def own(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["extensions"][DOMAIN]
    return found


def test_a_request_is_received_acted_on_and_completed(controller: Controller, ready: Ready) -> None:
    ready(samples=["a", "b", "c"], policy=NOW)
    body = asking("a", "b", "in no model")
    before = datetime.now(UTC)
    receipt = controller.ask(body)
    received = datetime.fromisoformat(receipt["received_time"])
    due = datetime.fromisoformat(receipt["expected_completion_time"])
    assert before <= received <= datetime.now(UTC)
    assert due.date() == received.date() + relativedelta(months=1)
    said = {
        "controller_id": "operator",
        "subject_request_id": body["subject_request_id"],
    }
    assert (
        without(
            receipt,
            *(
                "received_time",
                "expected_completion_time",
                "encoded_request",
                "processor_signature",
            ),
        )
        == said
    )
    id_ = body["subject_request_id"]
    begun = {"expected_completion_time": receipt["expected_completion_time"], "api_version": "2.0"}
    looked = controller.look(id_)
    own_id = own(looked)["deletion_request"]
    assert looked == {
        **(said | begun),
        "request_status": "pending",
        "extensions": {DOMAIN: {"deletion_request": own_id, "status": "pending"}},
    }
    [job_id] = working.plan()
    assert controller.look(id_)["request_status"] == "in_progress"
    working.publish(working.hold(job_id))
    done = controller.look(id_)
    assert (done["request_status"], done["results_count"]) == ("completed", 2)
    assert datetime.fromisoformat(done["expected_completion_time"]) < due
    url = f"https://{DOMAIN}/v1/deletion-requests/{own_id}/receipt"
    assert done["results_url"] == url
    answer = controller.client.get(url.removeprefix(f"https://{DOMAIN}"))
    assert answer.json()["format"] == "lethe-receipt-v1"


def test_the_deadline_is_the_regulations_from_the_receipt_on(controller: Controller) -> None:
    terms = {"gdpr": relativedelta(months=1), "ccpa": relativedelta(days=45)}
    for regulation, term in terms.items():
        answer = controller.ask(asking("a", regulation=regulation))
        received = datetime.fromisoformat(answer["received_time"])
        due = datetime.fromisoformat(answer["expected_completion_time"])
        assert due.date() == (received + term).date()


def test_what_no_model_holds_is_completed_with_no_results(
    controller: Controller, ready: Ready
) -> None:
    ready(samples=["a"])
    body = asking("in no model")
    controller.ask(body)
    answer = controller.look(body["subject_request_id"])
    assert (answer["request_status"], answer["results_count"]) == ("completed", 0)
    assert own(answer)["status"] == "nothing_found"


def test_the_body_is_given_back_byte_by_byte(controller: Controller) -> None:
    raw = json.dumps(asking("ä")).encode() + b" \n\t"
    answer = controller.ask(raw)
    assert base64.b64decode(answer["encoded_request"], validate=True) == raw


def test_a_receipt_can_be_checked_without_what_must_not_be_kept(
    controller: Controller, ready: Ready
) -> None:
    ready()
    body = asking("a")
    kept = without(controller.ask(body), "encoded_request")
    assert controller.has_receipt(kept)
    cancelled = controller.cancel(body["subject_request_id"])
    assert controller.has_receipt(cancelled)
    # The controls: other members, and the signature of another answer.
    assert not controller.has_receipt({**kept, "received_time": "2026-01-01T00:00:00Z"})
    assert not controller.has_receipt({**kept, "subject_request_id": str(uuid4())})
    other = {"processor_signature": cancelled["processor_signature"]}
    assert not controller.has_receipt({**kept, **other})
    assert not controller.has_signed(kept["processor_signature"], rfc8785.dumps(kept))


def test_a_request_that_is_repeated_is_answered_as_before_and_stored_once(
    controller: Controller, ready: Ready
) -> None:
    ready(samples=["a", "b"])
    body = asking("a", "b", status_callback_urls=["https://controller.example.com/x"])
    first = controller.ask(body)
    # Spelled in another way, it is the same request.
    again = controller.ask(json.dumps(dict(reversed(body.items())), indent=1).encode())
    apart = ("processor_signature", "encoded_request")
    assert without(again, *apart) == without(first, *apart)
    assert base64.b64decode(again["encoded_request"]).startswith(b"{\n")
    assert stored() == 1


def test_samples_are_named_by_identities_by_the_extension_or_by_both(
    controller: Controller, digest: Callable[[str], bytes]
) -> None:
    others = {"other.example.com": {"mpids": [2**63], "identities": "anything"}}
    named = {DOMAIN: {"sample_ids": ["b", "c"]}, **others}
    bodies = {
        "ab": asking("a", "b", extensions=others),
        "bc": without(asking(extensions=named), "subject_identities"),
        "abc": asking("a", "b", extensions=named),
    }
    for samples, body in bodies.items():
        controller.ask(body)
        id_ = own(controller.look(body["subject_request_id"]))["deletion_request"]
        with transaction() as session:
            kept = select(RequestedSample.sample_digest).where(
                RequestedSample.request_id == UUID(id_)
            )
            assert set(session.scalars(kept)) == {digest(sample) for sample in samples}


def test_a_request_may_be_limited_to_one_model(controller: Controller, ready: Ready) -> None:
    ready("digits", samples=["a"])
    ready("letters", samples=["a"])
    body = asking("a", extensions={DOMAIN: {"model": "letters"}})
    controller.ask(body)
    id_ = own(controller.look(body["subject_request_id"]))["deletion_request"]
    request = controller.client.get(f"/v1/deletion-requests/{id_}").json()
    assert [erasure["model"] for erasure in request["erasures"]] == ["letters"]
    assert request["reference"] == body["subject_request_id"]


def test_members_of_a_later_minor_version_are_no_reason_to_refuse(controller: Controller) -> None:
    controller.ask({**asking("a"), "api_version": "2.1", "something_new": {"x": 1}})


def test_a_request_is_cancelled_while_it_is_pending(controller: Controller, ready: Ready) -> None:
    ready()
    body = asking("a")
    controller.ask(body)
    id_ = body["subject_request_id"]
    before = datetime.now(UTC)
    answer = controller.cancel(id_)
    assert set(answer) == {
        *("controller_id", "received_time", "subject_request_id", "api_version"),
        "processor_signature",
    }
    assert (answer["controller_id"], answer["subject_request_id"]) == ("operator", id_)
    received = datetime.fromisoformat(answer["received_time"])
    assert before <= received <= datetime.now(UTC)
    assert controller.look(id_)["request_status"] == "cancelled"
    again = controller.cancel(id_)
    assert without(again, "processor_signature") == without(answer, "processor_signature")
    assert working.plan() == []


def test_what_has_begun_or_is_over_is_not_cancelled(controller: Controller, ready: Ready) -> None:
    ready(policy=NOW)
    body = asking("a")
    controller.ask(body)
    [job_id] = working.plan()
    for status in ("in_progress", "completed"):
        answer = controller.cancel(body["subject_request_id"], 400)
        [detail] = answer["error"]["errors"]
        assert detail["reason"] == "too-late"
        assert status in detail["message"]
        assert controller.look(body["subject_request_id"])["request_status"] == status
        if status == "in_progress":
            working.publish(working.hold(job_id))


def test_a_rejected_request_is_cancelled_with_the_reason(
    controller: Controller, ready: Ready
) -> None:
    ready()
    body = asking("a")
    controller.ask(body)
    id_ = own(controller.look(body["subject_request_id"]))["deletion_request"]
    rejection = {"reason": "suspected_fraud", "note": MARK}
    url = f"/v1/deletion-requests/{id_}/reject"
    assert controller.client.post(url, json=rejection).status_code == 200
    answer = controller.look(body["subject_request_id"])
    assert answer["request_status"] == "cancelled"
    assert own(answer) == {
        "deletion_request": id_,
        "status": "rejected",
        "reason": DenialReason.SUSPECTED_FRAUD,
    }
    assert "results_count" not in answer
    controller.cancel(body["subject_request_id"], 400)


# By hand: what a controller may conclude from each of its four words.
CALLED = {
    "pending": "pending",
    "held": "pending",
    "in_progress": "in_progress",
    "needs_attention": "in_progress",
    "completed": "completed",
    "nothing_found": "completed",
    "rejected": "cancelled",
    "cancelled": "cancelled",
}


@pytest.mark.parametrize("status", RequestStatus)
def test_each_status_has_a_word_in_opendsr(status: str) -> None:
    from app.opendsr.standing import status_of

    assert status_of(DeletionRequest(status=status)) == CALLED[status]


def test_what_waits_for_an_approval_is_pending_and_may_be_cancelled(
    controller: Controller, ready: Ready, reread: Reread
) -> None:
    ready(policy=NOW)
    reread("LETHE_REVIEW", "manual")
    approved, cancelled = asking("a"), asking("a")
    for body in (approved, cancelled):
        controller.ask(body)
        looked = controller.look(body["subject_request_id"])
        assert (looked["request_status"], own(looked)["status"]) == ("pending", "held")
    controller.cancel(cancelled["subject_request_id"])
    assert controller.look(cancelled["subject_request_id"])["request_status"] == "cancelled"
    id_ = own(controller.look(approved["subject_request_id"]))["deletion_request"]
    assert controller.client.post(f"/v1/deletion-requests/{id_}/approve").status_code == 200
    working.plan()
    assert controller.look(approved["subject_request_id"])["request_status"] == "in_progress"
