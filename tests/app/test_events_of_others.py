"""A client that may see its own requests alone hears nothing of others, nor of what they share."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app.events.reading import Told
from app.events.watching import RequestWatch, facts_for
from tests.app.streams import Service, place, served
from tests.app.working import NOW, hold, plan, publish


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[Service]:
    with served() as running:
        yield running


@pytest.fixture
def key_of(client: TestClient) -> Callable[..., str]:
    """A key of a client with these scopes."""

    def make(name: str, *scopes: str) -> str:
        body = {"name": name, "scopes": scopes or ("erasure:submit", "erasure:read")}
        answer = client.post("/v1/access-keys", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    return make


def ask(client: TestClient, key: str, *samples: str) -> str:
    answer = client.post(
        "/v1/deletion-requests",
        json={"sample_ids": samples},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 202
    return str(answer.headers["Location"])


def test_a_foreign_request_has_no_stream(
    client: TestClient, service: Service, ready: Callable[..., UUID], key_of: Callable[..., str]
) -> None:
    ready(samples=["a"])
    mine, theirs = key_of("mine"), key_of("theirs")
    location = ask(client, theirs, "a")
    place()

    def refused(path: str, key: str) -> tuple[int, Any]:
        ear = service.ask(path, {}, key)
        body = ear.answer.read()
        ear.close()
        return ear.answer.status, body

    foreign = refused(location + "/events", mine)
    assert foreign == refused(f"/v1/deletion-requests/{uuid4()}/events", mine)
    assert foreign[0] == 404
    assert refused(f"/v1/jobs/{uuid4()}/events", mine)[0] == 403
    assert refused("/v1/events", key_of("maker", "models:write"))[0] == 403
    with service.follow(location + "/events", key=theirs) as ear:
        assert ear.until("erasure.pending")


def test_a_shared_job_tells_a_client_its_status_and_nothing_of_the_others(
    client: TestClient, service: Service, ready: Callable[..., UUID], key_of: Callable[..., str]
) -> None:
    ready(policy=NOW)
    mine, theirs = key_of("mine"), key_of("theirs")
    location, other = ask(client, mine, "a"), ask(client, theirs, "b")
    (job_id,) = plan()
    publish(hold(job_id))
    place()
    with service.follow(location + "/events", key=mine) as ear:
        heard = list(ear)
    assert {"job.running", "job.published", "version.current"} <= {each.event for each in heard}
    for each in heard[:-1]:
        if each.event.startswith("job."):
            assert each.data["facts"] == {}
            assert each.data["subject"] == str(job_id)
        if each.event == "version.current":
            assert each.data["facts"].keys() == {
                *("model", "model_name", "number", "digest", "method", "guarantee", "verdict")
            }
    with service.follow(location + "/events") as ear:
        seen_by_all = list(ear)
    # Who may see everybody's hears the same events, with all that the log has.
    assert [each.id for each in seen_by_all] == [each.id for each in heard]
    facts = {each.event: each.data["facts"] for each in seen_by_all[:-1]}
    assert facts["job.published"]["rungs"]
    assert facts["version.current"]["commitment"]["removed"] == 2
    assert other.rpartition("/")[2] not in str(heard)


def test_the_feed_of_a_client_has_its_own_requests_alone(
    client: TestClient, service: Service, ready: Callable[..., UUID], key_of: Callable[..., str]
) -> None:
    ready(policy=NOW)
    mine, theirs = key_of("mine"), key_of("theirs")
    place()
    with (
        service.follow("/v1/events", key=mine) as live,
        service.follow("/v1/events?after=-1") as everything,
    ):
        locations = {key: ask(client, key, "a") for key in (mine, theirs)}
        (job_id,) = plan()
        publish(hold(job_id))
        last = ask(client, mine, "zzz")
        place()
        heard = live.until("deletion_request.nothing_found")
        whole = everything.until("deletion_request.nothing_found")
    own = {location.rpartition("/")[2] for location in (locations[mine], last)}
    assert {each.data["request"] for each in heard} == own
    assert {each.event.partition(".")[0] for each in heard} == {"deletion_request", "erasure"}
    assert {each.event.partition(".")[0] for each in whole} >= {"job", "version"}
    with service.follow("/v1/events?after=-1", key=mine) as ear:
        assert ear.until("deletion_request.nothing_found") == heard
    assert heard == [each for each in whole if each.data["request"] in own]


def test_a_job_is_told_of_no_longer_once_the_erasure_has_left_it() -> None:
    request, erasure, job = uuid4(), uuid4(), uuid4()
    other = uuid4()

    def told(event: str, subject: UUID, of: UUID | None, **facts: Any) -> Told:
        job_id = subject if event.startswith("job.") else None
        return Told(0, "", event, subject, facts, of, None, job_id)

    story = [
        (told("deletion_request.pending", request, request), True),
        (told("job.queued", job, None), False),
        (told("erasure.scheduled", uuid4(), other, job=str(job)), False),
        (told("job.running", job, None), False),
        (told("erasure.scheduled", erasure, request, job=str(job)), True),
        (told("job.queued", job, None), True),
        (told("erasure.cancelled", uuid4(), other), False),
        (told("job.running", job, None), True),
        (told("erasure.cancelled", erasure, request), True),
        (told("job.queued", job, None), False),
        (told("deletion_request.cancelled", request, request), True),
        (told("job.published", job, None), False),
    ]
    watch = RequestWatch(request)
    assert [watch.shows(each) for each, _ in story] == [shown for _, shown in story]
    assert watch.ends
    # Reopened, it goes on.
    assert watch.shows(told("deletion_request.pending", request, request))
    assert not watch.ends


def test_facts_that_nobody_thought_of_are_kept_from_those_who_see_their_own_alone() -> None:
    def told(event: str) -> Told:
        return Told(0, "", event, uuid4(), {"reason": "failed", "newly": 3}, None, None, None)

    for event, own in (
        ("erasure.pending", {"reason": "failed"}),
        ("job.failed", {}),
        ("version.current", {}),
        # These are about the client's own request alone.
        ("deletion_request.completed", {"reason": "failed", "newly": 3}),
        ("decision.extend", {"reason": "failed", "newly": 3}),
    ):
        assert facts_for(told(event), wide=False) == own
        assert facts_for(told(event), wide=True) == {"reason": "failed", "newly": 3}
