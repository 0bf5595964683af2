"""Streams tell what the log has, in its order, each entry once, and then what comes."""

import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app.db import transaction
from app.jobs import leases
from tests.app.streams import Heard, Service, eventually, logged, place, served
from tests.app.working import LEASE, NOW, fail, give_back, hold, plan, publish, refuse

ABOUT = ("deletion_request", "decision", "erasure", "job", "version")


@pytest.fixture
def service(environment: dict[str, str]) -> Iterator[Service]:
    with served() as running:
        yield running


def positions(heard: list[Heard]) -> list[int]:
    return [int(each.id) for each in heard if each.event not in ("end", "progress")]


def test_a_finished_request_is_told_from_its_beginning_to_its_end(
    client: TestClient, service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    location, other = submit("a"), submit("zzz")
    job_id = plan()[0]
    publish(hold(job_id))
    place()
    with service.follow(location + "/events") as ear:
        heard = list(ear)
    assert [each.event for each in heard] == [
        *("deletion_request.pending", "erasure.pending", "erasure.scheduled"),
        *("deletion_request.in_progress", "job.running", "job.published", "version.current"),
        *("erasure.completed", "deletion_request.completed", "end"),
    ]
    entries = {entry["position"]: entry for entry in logged(client)}
    for each in heard[:-1]:
        entry = entries[int(each.id)]
        assert {name: each.data[name] for name in ("at", "event", "subject", "facts")} == {
            name: entry[name] for name in ("at", "event", "subject", "facts")
        }
        about = each.event.startswith(("deletion_request", "erasure"))
        assert each.data["request"] == (location.rpartition("/")[2] if about else None)
    assert ear.retry == 3_000
    with service.follow(other + "/events") as ear:
        assert [each.event for each in ear] == [
            *("deletion_request.pending", "deletion_request.nothing_found", "end")
        ]


def test_what_comes_is_told_as_it_comes_until_the_end(
    service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    location = submit("a")
    place()
    with service.follow(location + "/events") as ear:
        assert ear.until("erasure.pending")[-1].data["facts"]["samples"] == 1
        job_id = plan()[0]
        place()
        assert ear.until("deletion_request.in_progress")
        job = hold(job_id)
        place()
        assert [each.event for each in ear.until("job.running")] == ["job.running"]
        give_back(job)
        place()
        assert [each.event for each in ear.until("job.queued")] == ["job.queued"]
        publish(hold(job_id))
        place()
        rest = list(ear)
    assert rest[-2].event == "deletion_request.completed"
    assert rest[-1].event == "end"
    # It is not an entry of the log, so that whoever connects again is answered that it has all.
    assert rest[-1].id == rest[-2].id
    again = service.ask(location + "/events", {"Last-Event-ID": rest[-1].id})
    assert again.answer.status == 204
    again.close()


def test_a_stream_goes_on_after_any_event_without_gap_or_repetition(
    service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready("digits", ["a", "b"], policy=NOW)
    ready("letters", ["a", "c"], policy=NOW)
    location = submit("a")
    first, second = plan()
    refuse(hold(first))
    publish(hold(second))
    place()
    with service.follow(location + "/events") as ear:
        # Nobody ends this: it needs attention.
        whole = ear.until("deletion_request.needs_attention")
    assert positions(whole) == sorted(set(positions(whole)))
    for place_, each in enumerate(whole[:-1]):
        with service.follow(location + "/events", each.id) as ear:
            assert ear.until("deletion_request.needs_attention") == whole[place_ + 1 :]
    middle = len(whole) // 2
    for path, after in (
        (f"{location}/events?after={whole[middle].id}", None),
        # The header is the newer one of the two.
        (f"{location}/events?after={whole[0].id}", whole[middle].id),
    ):
        with service.follow(path, after) as ear:
            assert ear.until("deletion_request.needs_attention") == whole[middle + 1 :]


def test_all_requests_are_followed_from_now_on_or_from_where_the_client_was(
    client: TestClient, service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    submit("a")
    place()
    with service.follow("/v1/events") as ear:
        location = submit("b")
        place()
        heard = ear.until("erasure.pending")
    assert [each.data["subject"] for each in heard[:1]] == [location.rpartition("/")[2]]
    # A stream that breaks before its first event goes on from where it began.
    began = ear.ids_given[0]
    with service.follow("/v1/events", began) as ear:
        assert ear.until("erasure.pending") == heard
    with service.follow("/v1/events?after=-1") as ear:
        whole = ear.until("version.current")
        last = logged(client)[-1]["position"]
        while positions(whole)[-1] < last:
            whole += ear.until(logged(client)[-1]["event"])
    expected = [e["position"] for e in logged(client) if e["event"].split(".")[0] in ABOUT]
    assert positions(whole) == expected


def test_resuming_at_random_tells_each_entry_once_while_others_write(
    client: TestClient, service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(samples=["a"])
    place()
    begin = logged(client)[-1]["position"]
    writers = [
        threading.Thread(target=lambda: [submit("a") for _ in range(8)], name=f"writer {n}")
        for n in range(3)
    ]
    done = threading.Event()

    def sequence() -> None:
        while not done.is_set():
            place()

    sequencer = threading.Thread(target=sequence)
    heard: list[Heard] = []
    for thread in (*writers, sequencer):
        thread.start()
    at, cuts = str(begin), iter([1, 2, 5, 3, 1, 8, 1, 1, 13] * 50)
    while len(heard) < 3 * 8 * 2:
        with service.follow("/v1/events", at) as ear:
            for each, _ in zip(ear, range(next(cuts)), strict=False):
                heard.append(each)
                at = each.id
                if len(heard) == 3 * 8 * 2:
                    break
    done.set()
    for thread in (*writers, sequencer):
        thread.join()
    expected = [e for e in logged(client) if e["position"] > begin]
    assert [(int(h.id), h.event, h.data["subject"]) for h in heard] == [
        (e["position"], e["event"], e["subject"]) for e in expected
    ]


def test_a_job_is_followed_until_its_version_or_its_failure(
    service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    submit("a")
    (refused,) = plan()
    refuse(hold(refused))
    submit("b")
    (published,) = plan()
    publish(hold(published))
    submit("c")
    (failed,) = plan()
    fail(hold(failed))
    place()

    def told(job_id: UUID) -> list[str]:
        with service.follow(f"/v1/jobs/{job_id}/events") as ear:
            return [each.event for each in ear]

    assert told(refused) == ["job.queued", "job.running", "job.refused", "end"]
    assert told(failed) == ["job.queued", "job.running", "job.failed", "end"]
    assert told(published) == [
        *("job.queued", "job.running", "job.published", "version.current", "end")
    ]


def test_progress_is_told_without_moving_the_resume_point(
    service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    location = submit("a")
    job = hold(plan()[0])
    place()

    def report(fraction: float) -> None:
        with transaction() as session:
            leases.renew(session, job, LEASE, {"phase": "iau", "fraction": fraction})

    report(0.25)
    with (
        service.follow(location + "/events") as of_request,
        service.follow(f"/v1/jobs/{job.id}/events") as of_job,
        service.follow("/v1/events") as of_all,
    ):
        for ear in (of_request, of_job, of_all):
            heard = ear.until("progress")
            assert heard[-1].data == {"job": str(job.id), "phase": "iau", "fraction": 0.25}
            assert heard[-1].id == (heard[-2].id if len(heard) > 1 else ear.ids_given[0])
        report(0.5)
        for ear in (of_request, of_job, of_all):
            (new,) = ear.until("progress")
            assert new.data["fraction"] == 0.5
        publish(job)
        place()
        assert [each.event for each in of_request][-1] == "end"
        # Not the withdrawal of the version before it, which names the job as its cause.
        assert [each.event for each in of_job] == ["job.published", "version.current", "end"]


def test_what_is_not_there_is_answered_before_a_stream_begins(
    client: TestClient, service: Service, ready: Callable[..., UUID], submit: Callable[..., str]
) -> None:
    ready(policy=NOW)
    location = submit("a")
    place()
    job_id = plan()[0]
    size = logged(client)[-1]["position"] + 1
    for path, after, status in (
        (f"/v1/deletion-requests/{uuid4()}/events", None, 404),
        (f"/v1/jobs/{uuid4()}/events", None, 404),
        (location + "/events", str(size), 422),
        (f"/v1/jobs/{job_id}/events", str(size), 422),
        ("/v1/events", str(size), 422),
        ("/v1/events", "x", 422),
        ("/v1/events", "-2", 422),
        ("/v1/events?after=99999999999999999999", None, 422),
    ):
        ear = service.ask(path, {} if after is None else {"Last-Event-ID": after})
        assert ear.answer.status == status, path
        assert ear.answer.headers["Content-Type"] == "application/problem+json"
        ear.close()
    # The last position that there is will do.
    with service.follow(location + "/events", str(size - 1)):
        pass
    eventually(lambda: service.broadcast.open == 0)
