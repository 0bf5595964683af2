"""The zone in which the days of a deadline are counted."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.deletions import intake
from app.settings import Settings

NEEDED = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}


def test_days_are_those_of_utc_unless_a_zone_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(**NEEDED).time_zone == ZoneInfo("UTC")
    monkeypatch.setenv("LETHE_TIME_ZONE", "Europe/Berlin")
    assert Settings(**NEEDED).time_zone == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Berlin",
        "Europe",
        "europe/berlin",
        "+02:00",
        "localtime",
        "right/UTC",
        "posix/UTC",
        "../zoneinfo/UTC",
        "/usr/share/zoneinfo/UTC",
    ],
)
def test_what_is_no_time_zone_of_iana_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="time_zone"):
        Settings(**NEEDED, time_zone=name)


def test_time_zones_are_known_on_a_machine_that_has_none() -> None:
    code = "import {}; print(__import__('zoneinfo').ZoneInfo('Europe/Berlin'))"
    bare = {**os.environ, "PYTHONTZPATH": ""}
    without = "sys; sys.modules['tzdata'] = None"
    for imported, works in (("app.settings", True), (without, False)):
        told = subprocess.run(
            [sys.executable, "-c", code.format(imported)], env=bare, capture_output=True, text=True
        )
        assert (told.returncode == 0) is works
        assert ("ZoneInfoNotFoundError" in told.stderr) is not works


def test_the_days_of_a_deadline_are_those_of_the_zone_that_is_set(
    client: TestClient, reread: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    received = datetime(2026, 3, 1, 2, tzinfo=UTC)  # still 28 February in New York
    monkeypatch.setattr(intake, "received_at", lambda _: received)

    def due() -> datetime:
        body = {"sample_ids": ["nobody"]}
        answer = client.post("/v1/deletion-requests", json=body).json()
        return datetime.fromisoformat(answer["due_at"])

    assert due() == datetime(2026, 4, 1, 2, tzinfo=UTC)
    reread("LETHE_TIME_ZONE", "America/New_York")
    assert due() == datetime(2026, 3, 29, 1, tzinfo=UTC)  # 28 March, 21:00 in summer time
