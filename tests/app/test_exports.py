"""What an authority is handed: a record for each request, and yearly numbers."""

import csv
import io
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db import transaction
from app.exports import command, records
from app.exports.formats import Format, write
from app.exports.records import COLUMNS, Period
from app.tables import DeletionRequest
from tests.app.working import NOW, hold, plan, publish

SINCE, UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
PERIOD = {"from": SINCE.isoformat(), "to": UNTIL.isoformat()}


def submit(client: TestClient, *samples: str, **more: Any) -> str:
    answer = client.post("/v1/deletion-requests", json={"sample_ids": samples, **more})
    assert answer.status_code == 202
    request_id: str = answer.json()["id"]
    return request_id


def dated(request_id: str, received: datetime, days: float | None = None) -> None:
    """Move a request in time: when it came, and how long it took."""
    values: dict[str, Any] = {
        "received_at": received,
        "due_at": received + timedelta(days=31),
    }
    if days is not None:
        values["finished_at"] = received + timedelta(days=days)
    with transaction() as session:
        session.execute(
            update(DeletionRequest).where(DeletionRequest.id == UUID(request_id)).values(**values)
        )


def lines(client: TestClient, **more: str) -> list[dict[str, Any]]:
    answer = client.get("/v1/exports/requests", params={**PERIOD, **more})
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_completed_request_is_told_in_one_record(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    request = submit(client, "a", "unknown", reference="case-1", reason="consent withdrawn")
    publish(hold(*plan()))
    (record,) = lines(client)
    assert tuple(record) == COLUMNS
    assert record["request"] == request
    assert record["nature"] == "deletion"
    assert record["manner"] == "API, by operator"
    assert (record["reference"], record["ground"]) == ("case-1", "consent withdrawn")
    assert record["response"] == "deleted"
    assert (record["models"], record["models_completed"], record["samples"]) == (1, 1, 2)
    assert (record["versions"], record["guarantees"]) == ("digits/2", "approximate")
    assert record["responded_at"] > record["received_at"]
    assert record["denial_basis"] is None
    assert not record["overdue"]


def test_a_request_that_one_of_two_models_fulfilled_was_so_in_part(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    models = {name: ready(name, ["a", "b"], NOW) for name in ("slow", "swift")}
    request = submit(client, "a")
    jobs = [hold(job_id) for job_id in plan()]
    publish(next(job for job in jobs if job.model_id == models["swift"]))
    assert client.post(f"/v1/deletion-requests/{request}/cancel").status_code == 200
    (record,) = lines(client)
    assert record["response"] == "deleted in part"
    assert (record["models"], record["models_completed"]) == (2, 1)
    (year,) = client.get("/v1/exports/summary", params=PERIOD).json()["years"]
    assert (year["complied"], year["complied_in_part"]) == (0, 1)


def test_recipients_of_what_was_withdrawn_are_counted(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    for name in ("clinic", "edge fleet"):
        answer = client.post("/v1/models/digits/recipients", json={"name": name})
        assert answer.status_code == 201
    submit(client, "a")
    publish(hold(*plan()))
    assert lines(client)[0]["recipients_told"] == 2


def test_an_open_request_past_its_deadline_is_overdue_and_has_no_response(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a"], NOW)
    dated(submit(client, "a"), datetime(2026, 1, 5, tzinfo=UTC))
    (record,) = lines(client)
    assert record["overdue"] is True
    assert record["response"] is record["responded_at"] is record["days"] is None


def test_the_period_begins_at_its_start_and_ends_before_its_end(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    moments = {
        submit(client, "nobody"): at
        for at in (SINCE - timedelta(microseconds=1), SINCE, UNTIL - timedelta(microseconds=1))
    }
    last = submit(client, "nobody")
    for request, at in {**moments, last: UNTIL}.items():
        dated(request, at)
    assert [record["request"] for record in lines(client)] == list(moments)[1:]


def test_an_export_of_several_batches_has_each_request_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BATCH", 2)
    sent = {submit(client, "nobody") for _ in range(5)}
    found = [record["request"] for record in lines(client)]
    assert sorted(found) == sorted(sent)


def test_csv_has_the_same_records_and_no_formulas(client: TestClient) -> None:
    submit(client, "nobody", reference='=HYPERLINK("http://x")', reason='he said "no",\nagain')
    answer = client.get("/v1/exports/requests", params={**PERIOD, "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    (record,) = lines(client)
    assert row["reference"] == "'" + record["reference"]
    assert row["ground"] == record["ground"]
    assert row["request"] == record["request"]
    assert row["overdue"] == "no"


def test_an_export_without_requests_is_a_heading() -> None:
    assert list(write([], Format.JSONL)) == []
    assert list(write([], Format.CSV)) == [",".join(COLUMNS) + "\r\n"]


def test_years_are_counted_with_their_median_days(client: TestClient) -> None:
    took = [1.0, 2.0, 4.0, 40.0]
    for days in took:
        dated(submit(client, "nobody"), datetime(2025, 3, 1, tzinfo=UTC), days)
    dated(submit(client, "nobody"), datetime(2026, 2, 1, tzinfo=UTC), 7.0)
    dated(submit(client, "nobody", regulation="ccpa"), datetime(2026, 2, 1, tzinfo=UTC), 3.0)
    answer = client.get("/v1/exports/summary", params=PERIOD).json()["years"]
    assert [(row["year"], row["regulation"], row["received"]) for row in answer] == [
        (2025, "gdpr", 4),
        (2026, "ccpa", 1),
        (2026, "gdpr", 1),
    ]
    assert answer[0]["median_days"] == statistics.median(took)
    assert answer[0]["overdue"] == sum(days > 31 for days in took)
    assert answer[0]["nothing_found"] == 4
    assert answer[0]["complied"] == answer[0]["denied"] == answer[0]["open"] == 0


def test_what_was_withdrawn_counts_as_that_and_not_in_the_median(
    client: TestClient, ready: Callable[..., UUID]
) -> None:
    ready("digits", ["a", "b"], NOW)
    withdrawn, kept = submit(client, "a"), submit(client, "b")
    assert client.post(f"/v1/deletion-requests/{withdrawn}/cancel").status_code == 200
    publish(hold(*plan()))
    dated(withdrawn, datetime(2026, 2, 1, tzinfo=UTC), 30.0)
    dated(kept, datetime(2026, 2, 1, tzinfo=UTC), 2.0)
    (year,) = client.get("/v1/exports/summary", params=PERIOD).json()["years"]
    assert (year["withdrawn"], year["complied"], year["median_days"]) == (1, 1, 2.0)
    responses = {record["request"]: record["response"] for record in lines(client)}
    assert responses == {withdrawn: "withdrawn by the requester", kept: "deleted"}


def test_a_period_that_ends_before_it_begins_is_refused(client: TestClient) -> None:
    turned = {"from": PERIOD["to"], "to": PERIOD["from"]}
    assert client.get("/v1/exports/requests", params=turned).status_code == 422
    naive = {"from": "2026-01-01T00:00:00", "to": "2026-02-01T00:00:00"}
    assert client.get("/v1/exports/summary", params=naive).status_code == 422


def test_the_command_writes_what_the_api_answers(
    client: TestClient, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, "nobody")
    out = tmp_path / "requests.csv"
    asked = ["--from", "2025-01-01", "--to", "2027-01-01"]
    assert command.main([*asked, "--format", "csv", "--out", str(out)]) == 0
    answer = client.get("/v1/exports/requests", params={**PERIOD, "format": "csv"})
    assert out.read_bytes() == answer.content
    assert command.main([*asked, "--format", "csv", "--out", str(out)]) == 2
    assert command.main([*asked, "--summary"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == client.get("/v1/exports/summary", params=PERIOD).json()


def test_a_day_without_a_zone_is_one_of_utc() -> None:
    assert command.moment("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    assert Period(command.moment("2026-03-01T02:00+02:00"), UNTIL).start.hour == 2
