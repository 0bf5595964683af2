"""The calls that the documentation shows work as they stand there, against the API on a port."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from app.audit import ledger
from app.db import transaction
from app.main import create_app
from tests.app.controllers import set_up
from tests.conftest import API_KEY, ROOT
from tests.fuzzing.hooks import CHECKPOINT
from tests.serving import serving

PAGES = [
    "use-the-api.md",
    "follow-a-request.md",
    "callbacks.md",
    "opendsr.md",
    "operate.md",
    "ingest.md",
    "write-a-recipe.md",
]
# Not against a service that runs already.
OTHERWISE = re.compile(r"docker compose")
# Samples that the pages name, and that the model was trained on.
SAMPLES = ["writer-017/scan-00342", "writer-017/scan-00343"]

needs_curl = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("bash", "curl", "openssl")),
    reason="there is no curl or openssl here",
)


@pytest.fixture
def url(
    ready: Callable[..., UUID], reread: Callable[[str, str], None], tmp_path: Path
) -> Iterator[str]:
    ready("digits", SAMPLES)
    (tmp_path / "opendsr").mkdir()
    with (
        set_up(reread, tmp_path / "opendsr"),
        serving(create_app()) as address,
        placing_entries(),
    ):
        yield address


@contextmanager
def placing_entries() -> Iterator[None]:
    """Give log entries their places, as the scheduler does."""
    ended = threading.Event()

    def place() -> None:
        while not ended.wait(0.1):
            with transaction() as session:
                ledger.sequence(session)

    thread = threading.Thread(target=place, name="scheduler")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def run(script: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "LETHE": url,
            "KEY": API_KEY,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_curl
@pytest.mark.parametrize("page", PAGES)
def test_each_call_of_a_page_succeeds(page: str, url: str, tmp_path: Path) -> None:
    found = [block for block in blocks(page, "sh") if not OTHERWISE.search(block)]
    found = [block for block in found if "curl" in block or page == "use-the-api.md"]
    assert found
    assert all(
        "lethe.curl" in block or "fail-with-body" in block for block in found if "curl" in block
    )
    (tmp_path / "churn.safetensors").write_bytes(CHECKPOINT)
    done = run("\n".join(found), url, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert API_KEY not in done.stdout + done.stderr


@needs_curl
def test_a_call_that_is_refused_would_fail_the_page(url: str, tmp_path: Path) -> None:
    setup = blocks("use-the-api.md", "sh")[0]
    done = run(setup + '\ncurl --config lethe.curl "$LETHE/v1/nowhere"', url, tmp_path)
    assert done.returncode != 0
    assert "urn:lethe:problem:not-found" in done.stdout


def test_the_python_of_the_page_runs(url: str, tmp_path: Path) -> None:
    [code] = blocks("use-the-api.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", "import os\nfrom pathlib import Path\n" + code],
        cwd=tmp_path,
        env={**os.environ, "LETHE": url, "KEY": API_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "receipt.json").stat().st_size > 1000
