"""The client keeps its promises against the real API over a socket, and against a bad network."""

import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from http import HTTPStatus
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db import transaction
from app.main import create_app
from app.tables import DeletionRequest
from lethe import client as public
from lethe.client import Client, NotFinished, Refused, Unreachable
from lethe.verify.keys import load_keys
from lethe.verify.receipt import verify_receipt
from tests.conftest import API_KEY
from tests.serving import serving


class Weather:
    """ASGI middleware: answers that are lost on their way, and a service that is busy at first."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.busy = 0
        self.lost = 0
        self.cut = False
        self.seen: list[tuple[str, str, int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        lose, self.lost = self.lost > 0, max(0, self.lost - 1)

        async def weathered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Before the client has it, which may look here next.
                self.seen.append((scope["method"], scope["path"], status))
            if self.cut and message.get("body"):
                lines = message["body"].splitlines(keepends=True)
                message["body"] = b"".join(line for line in lines if b'"lines"' not in line)
            if not lose:
                await send(message)

        if self.busy > 0:
            self.busy -= 1
            self.seen.append((scope["method"], scope["path"], 503))
            headers = [(b"retry-after", b"1"), (b"content-length", b"0")]
            start = {"type": "http.response.start", "status": 503, "headers": headers}
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, weathered)
        if lose:
            # An answer that breaks off: the server closes the connection.
            headers = [(b"content-length", b"100")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"{"})


@pytest.fixture
def weather(environment: dict[str, str]) -> Weather:
    return Weather(create_app())


@pytest.fixture
def url(weather: Weather) -> Iterator[str]:
    with serving(weather) as address:
        yield address


@pytest.fixture
def lethe(url: str) -> Iterator[Client]:
    with Client(url, API_KEY, patience=10) as client:
        yield client


def stored() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(DeletionRequest)) or 0


def test_what_submit_returns_is_stored_and_can_be_read_again(
    lethe: Client, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"])
    made = lethe.submit(["a", "stranger"], model="digits", reference="case-7", regulation="ccpa")
    assert (made.status, made.model, made.reference) == ("pending", "digits", "case-7")
    assert (made.regulation, made.sample_count) == ("ccpa", 2)
    assert made.due_at is not None
    assert (made.due_at - made.received_at).days == 45
    [erasure] = made.erasures
    assert (erasure.model, erasure.status, erasure.sample_count) == ("digits", "pending", 1)
    assert lethe.get(made.id) == made
    assert list(lethe.requests()) == [made]
    assert stored() == 1


def test_the_same_key_gives_the_same_request(lethe: Client) -> None:
    first = lethe.submit(["a"], idempotency_key="mine")
    assert lethe.submit(["a"], idempotency_key="mine").id == first.id
    assert lethe.submit(["a"]).id != first.id
    with pytest.raises(Refused) as refused:
        lethe.submit(["b"], idempotency_key="mine")
    assert refused.value.type == "urn:lethe:problem:idempotency-key-reused"
    assert stored() == 2


def test_a_submission_whose_answer_was_lost_is_not_stored_twice(
    lethe: Client, weather: Weather
) -> None:
    weather.lost = 1
    made = lethe.submit(["a"])
    posts = [seen for seen in weather.seen if seen[0] == "POST"]
    assert len(posts) == 2
    assert [status for *_, status in posts] == [202, 202]
    assert stored() == 1
    assert lethe.get(made.id).id == made.id


def test_a_busy_service_is_asked_again_after_the_time_that_it_names(
    lethe: Client, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("lethe._passing.time.sleep", waited.append)
    weather.busy = 2
    assert lethe.submit(["a"]).sample_count == 1
    assert len(waited) == 2
    assert all(pause >= 1 for pause in waited)
    assert stored() == 1


def test_impatience_ends_in_what_the_service_said_last(url: str, weather: Weather) -> None:
    weather.busy = 100
    with Client(url, API_KEY, patience=0.5) as hasty, pytest.raises(Refused) as refused:
        hasty.submit(["a"])
    assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert len(weather.seen) == 1


def test_a_service_that_is_not_there_is_told_with_the_key_to_repeat_with() -> None:
    sample_ids = ["-".join(["MARKED", "sample"])]
    with Client("http://127.0.0.1:9", API_KEY, patience=0.5) as lethe:
        with pytest.raises(Unreachable) as lost:
            lethe.submit(sample_ids, idempotency_key="mine")
        assert lost.value.idempotency_key == "mine"
        with pytest.raises(Unreachable) as generated:
            lethe.submit(sample_ids)
        assert UUID(generated.value.idempotency_key)
    told = "".join(traceback.format_exception(lost.value))
    assert "MARKED-sample" not in told + repr(lost.value)
    assert API_KEY not in told + repr(lethe)


def test_waiting_ends_with_the_request_and_asks_cheaply(
    lethe: Client, weather: Weather, ready: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready("digits", ["a"])
    made = lethe.submit(["a"])
    polls = 0

    def withdraw_after_the_third_poll(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            lethe.cancel(made.id)

    monkeypatch.setattr("lethe.client.time.sleep", withdraw_after_the_third_poll)
    ended = lethe.wait(made.id)
    assert ended.status == "cancelled"
    assert ended.finished_at is not None
    asked = [status for verb, path, status in weather.seen if verb == "GET"]
    assert asked == [200, 304, 304, 200]


def test_waiting_in_vain_tells_where_the_request_stands(
    lethe: Client, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"])
    made = lethe.submit(["a"])
    with pytest.raises(NotFinished) as vain:
        lethe.wait(made.id, timeout=0.2)
    assert vain.value.request.id == made.id
    assert vain.value.request.status == "pending"


def test_a_withdrawal_says_what_it_achieved(lethe: Client, ready: Callable[..., UUID]) -> None:
    ready("digits", ["a"])
    made = lethe.submit(["a"])
    done = lethe.cancel(made.id)
    assert (done.request.status, done.cancelled, done.too_late) == ("cancelled", ("digits",), ())
    assert lethe.cancel(made.id).cancelled == ("digits",)
    nothing = lethe.submit(["stranger"])
    with pytest.raises(Refused) as late:
        lethe.cancel(nothing.id)
    assert late.value.type == "urn:lethe:problem:too-late"


def test_the_receipt_is_proven_by_the_verifier(lethe: Client, url: str) -> None:
    ended = lethe.wait(lethe.submit(["stranger"]).id, timeout=10)
    assert ended.status == "nothing_found"
    receipt = lethe.receipt(ended.id)
    verified = verify_receipt(receipt, load_keys(httpx2.get(url + "/v1/keys").content))
    assert verified.statement.request.id == ended.id


@pytest.mark.parametrize(
    ("key", "status", "problem"), [(API_KEY, 404, "not-found"), ("wrong", 401, "unauthorized")]
)
def test_refusals_have_their_type(url: str, key: str, status: int, problem: str) -> None:
    with Client(url, key) as lethe, pytest.raises(Refused) as refused:
        lethe.get(uuid4())
    assert refused.value.status == status
    assert refused.value.type == f"urn:lethe:problem:{problem}"
    assert refused.value.detail


def test_what_is_wrong_with_a_body_is_told_by_its_place(lethe: Client) -> None:
    with pytest.raises(Refused) as refused:
        lethe.submit([])
    assert [each.pointer for each in refused.value.errors] == ["/body/sample_ids"]


def test_pages_are_followed_to_their_end(lethe: Client) -> None:
    made = [lethe.submit([f"sample-{number}"]).id for number in range(55)]
    assert [each.id for each in lethe.requests()] == made[::-1]
    assert list(lethe.requests(status="pending")) == []


def test_many_requests_in_one_call_are_answered_line_by_line(
    lethe: Client, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"])
    lines = [{"sample_ids": ["a"]}, {"sample_ids": []}, {"sample_ids": ["b"], "reference": "x"}]
    first = list(lethe.submit_many(lines, idempotency_key="import"))
    assert [outcome.line for outcome in first] == [1, 2, 3]
    assert [outcome.repeated for outcome in first] == [False, False, False]
    assert [outcome.id is None for outcome in first] == [False, True, False]
    assert first[1].problem is not None
    assert first[1].problem["type"] == "urn:lethe:problem:invalid-request"
    ids = [outcome.id for outcome in first]
    assert lethe.get(ids[2]).reference == "x"  # type: ignore[arg-type]
    again = list(lethe.submit_many(lines, idempotency_key="import"))
    assert [outcome.id for outcome in again] == ids
    assert [outcome.repeated for outcome in again] == [True, False, True]
    rest = list(lethe.submit_many(lines[2:], idempotency_key="import", first_line=3))
    assert [(outcome.line, outcome.id, outcome.repeated) for outcome in rest] == [(3, ids[2], True)]
    assert stored() == 2


def test_an_answer_to_many_that_was_cut_short_is_told(lethe: Client, weather: Weather) -> None:
    weather.cut = True
    outcomes = lethe.submit_many([{"sample_ids": ["a"]}], idempotency_key="import")
    assert next(outcomes).line == 1
    with pytest.raises(Unreachable) as cut:
        next(outcomes)
    assert cut.value.idempotency_key == "import"


def test_one_client_serves_many_threads(lethe: Client) -> None:
    def submit(number: int) -> None:
        for repetition in range(5):
            lethe.submit([f"{number}-{repetition}"])

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored() == 30


def test_all_that_it_hands_out_can_be_imported_from_it() -> None:
    assert sorted(public.__all__) == public.__all__
    assert all(getattr(public, name).__doc__ for name in public.__all__)


def test_it_takes_nothing_of_the_service() -> None:
    code = (
        "import sys, lethe.client; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'app', 'workers', 'embedded', 'fastapi', 'starlette', 'pydantic', 'sqlalchemy', "
        "'celery', 'torch', 'redis'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
