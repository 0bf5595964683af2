"""A short run: every crash point, a stolen lease and some random kills, and nothing is lost.

`make chaos KILLS=500` is the long one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.crash_points import CrashPoint
from embedded.servers import remove, temporary_place

RANDOM_KILLS = 6
SECONDS = 400


@pytest.fixture
def folder() -> Path:
    folder = temporary_place() / "lethe-chaos-test"
    for part in (folder / "state", folder):
        remove(part)
    return folder


@pytest.mark.timeout(SECONDS)
def test_a_service_that_is_killed_everywhere_loses_nothing_and_does_nothing_twice(
    folder: Path,
) -> None:
    kills = len(CrashPoint) + RANDOM_KILLS
    command = [sys.executable, "-m", "tests.chaos", "--kills", str(kills), "--folder", str(folder)]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["kills"] >= kills
    assert found["stolen"] >= 1
    assert found["completed"] > 0
    assert found["submitted"] == found["accepted"]
    promised = ("lost", "doubled", "forks", "plaintext", "phantoms", "retained", "unverified")
    assert {name: found[name] for name in promised} == dict.fromkeys(promised, 0)
    assert found["log_consistent"] is True
    for part in (folder / "state", folder):
        remove(part)
