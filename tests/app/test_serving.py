"""A server's process is not kept waiting by the collector of garbage."""

import os
import subprocess
import sys

from embedded.commands import PROGRAMS
from tests.conftest import ROOT

PROGRAM = """
import gc
from app.main import create_app
from app.serving import THRESHOLDS, create
before = gc.get_freeze_count()
app = create()
print(before, gc.get_freeze_count(), gc.get_threshold() == THRESHOLDS)
print(app.openapi() == create_app().openapi())
"""


def test_what_is_there_from_the_start_is_not_looked_through_again(
    environment: dict[str, str],
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    counts, described = ran.stdout.splitlines()
    before, frozen, is_set = counts.split()
    assert int(before) == 0
    assert int(frozen) > 100_000
    assert (is_set, described) == ("True", "True")


def test_the_service_runs_it_so() -> None:
    (api,) = (program for program in PROGRAMS if program.name == "api")
    assert "app.serving:create" in api.command
    for file in ("Dockerfile", "docker-compose.yml"):
        text = (ROOT / file).read_text()
        assert '"app.serving:create"' in text
        assert "app.main:create_app" not in text
