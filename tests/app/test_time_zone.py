"""The zone in which the days of a deadline are counted."""

import os
import subprocess
import sys
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

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
