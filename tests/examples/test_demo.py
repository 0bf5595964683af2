"""The product's front door, with a worker killed in the middle of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.servers import remove, temporary_place


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lethe-demo-", dir=temporary_place()))
    folder.chmod(0o711)
    yield folder
    remove(folder / ".lethe-demo" / "service")
    shutil.rmtree(folder)


@pytest.mark.timeout(300)
def test_the_demo_ends_in_one_new_version_although_its_worker_is_killed(folder: Path) -> None:
    unset = ("LETHE_DATABASE_URL", "LETHE_BROKER_URL", "LETHE_API_KEY", "LETHE_ID_KEY")
    done = subprocess.run(
        [sys.executable, "-m", "lethe_examples.demo", "--kill-worker"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in unset},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    seconds = result.pop("seconds")
    forgotten = result.pop("forgotten")
    assert result == {
        "requests": 9,
        "jobs": 1,
        "version": 2,
        "verdict": "passed",
        "receipt_verified": True,
    }
    assert forgotten > 50
    assert seconds > 0
    assert "SIGKILL to the worker in mid-job" in done.stderr
