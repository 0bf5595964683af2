"""A short run: every crash point, a stolen lease and some random kills, and nothing is lost.

``make chaos KILLS=500`` is the long one.
"""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from app.crash_points import CrashPoint
from embedded.servers import remove, temporary_place
from tests.chaos.fleet import PROGRAMS, SERVERS
from tests.chaos.schedule import KILLS, actions

# With this one, chance strikes each kind of process in the first few kills.
SEED = 10646
RANDOM_KILLS = 6
SECONDS = 600
PROMISED = (
    *("lost", "doubled", "forks", "plaintext", "artifacts", "retained", "unverified"),
    *("phantoms", "heartbeat", "unchecked"),
)


@pytest.fixture
def folder() -> Path:
    """Where the run's state lies; it stays there if the run failed."""
    folder = temporary_place() / "lethe-chaos-test"
    for part in (folder / "state", folder):
        remove(part)
    return folder


def test_the_seed_of_the_short_run_strikes_each_kind_of_process() -> None:
    struck = [action.target for action in islice(actions(SEED), 7) if action.kind in KILLS]
    assert len(struck) == RANDOM_KILLS
    assert {name.split("-")[0] for name in struck} == {
        name.split("-")[0] for name in (*PROGRAMS, *SERVERS)
    }


@pytest.mark.timeout(SECONDS)
def test_a_service_that_is_killed_everywhere_loses_nothing_and_does_nothing_twice(
    folder: Path,
) -> None:
    kills = len(CrashPoint) + RANDOM_KILLS
    arguments = ["--kills", str(kills), "--seed", str(SEED), "--folder", str(folder)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["kills"] >= kills
    assert found["stolen"] >= 1
    assert found["completed"] > 0
    assert found["submitted"] == found["accepted"]
    assert {name: found[name] for name in PROMISED} == dict.fromkeys(PROMISED, 0)
    assert found["log_consistent"] is True
    for part in (folder / "state", folder):
        remove(part)
