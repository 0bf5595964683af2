import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from embedded.servers import Servers, remove, temporary_place, temporary_servers


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account may pass through; pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp(prefix="lethe-test-", dir=temporary_place()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    """Where a state folder will be made."""
    yield place / "state"
    remove(place / "state")


@pytest.fixture(scope="session")
def used() -> Iterator[Path]:
    """A state folder that has a database already, which takes most of a first start's time."""
    folder = temporary_place() / f"lethe-test-{secrets.token_hex(8)}"
    with Servers(folder, durable=False):
        pass
    yield folder
    remove(folder)


@pytest.fixture
def secluded(place: Path) -> Path:
    """A folder that root alone can enter, as /root is."""
    if os.geteuid() != 0:
        pytest.skip("only root hands the servers to another account")
    folder = place / "secluded"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Servers for tests that only look at them."""
    with temporary_servers() as started:
        yield started


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition instead of a time."""

    def wait(condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs; one that nobody has reaped yet does not."""

    def check(pid: int) -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(pid, 0)
            stat = Path(f"/proc/{pid}/stat")
            return not Path("/proc").exists() or stat.read_text().rsplit(")")[-1].split()[0] != "Z"
        return False

    return check
