"""`python -m embedded scrub` reaches the private database, whether the service runs or not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.servers import Servers
from embedded.supervisor import ROOT


@pytest.fixture
def environment() -> dict[str, str]:
    """What an operator's shell holds: none of the service's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}


def scrub(
    folder: Path, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedded", "scrub", "--folder", folder, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_scrub_runs_beside_the_service_and_without_it(used: Path, environment: dict[str, str]):
    # Its database has no tables, and that is for the database alone to know.
    with Servers(used, durable=False) as servers:
        password = servers.claim.secrets.database_password
        beside = scrub(used, environment)
    alone = scrub(used, environment, "--", "--json")
    assert (beside.returncode, beside.stdout) == (2, "")
    assert "alembic upgrade head" in beside.stderr
    assert (alone.returncode, list(json.loads(alone.stdout))) == (2, ["could_not_run"])
    assert "alembic upgrade head" in alone.stdout
    assert password not in beside.stderr + alone.stdout + alone.stderr


def test_a_folder_without_a_service_is_refused_and_stays_as_it_is(
    place: Path, environment: dict[str, str]
):
    refused = scrub(place / "none", environment)
    assert (refused.returncode, "no service's state" in refused.stderr) == (2, True)
    assert not (place / "none").exists()
