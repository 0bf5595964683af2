"""A disk that fails for real: jobs say why, the old version stays current, and a repair helps."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import outcome
from app.scrub.service import scrub
from app.settings import settings
from app.tables import UnlearningJob
from tests.app.scrubbing import make_old
from tests.patience import DAY, tries
from tests.workers.gradient_ledgers import begin, row
from workers import ledgers, run

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
OTHERS = tuple(f"person-{index}" for index in range(40, 80))
ROOT = Path(__file__).parents[2]

# Claims a job as a worker does, and is in the middle of writing its weights until it is killed.
WRITER = """
import sys, signal
from uuid import UUID
from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs import leases
from app.settings import settings
with transaction() as session:
    assert leases.claim(session, UUID(sys.argv[1]), "victim", settings().lease) is not None
with ArtifactStore(settings().artifacts_folder).incoming() as file:
    file.write(bytes(100_000))
    print(file.flush(), flush=True)
    signal.pause()
"""

# May write files of 64 KiB at the most, and stores larger ones: in one go, and byte by byte.
LIMITED = """
import resource, sys
from pathlib import Path
from app.artifacts import ArtifactStore
from app.errors import StorageFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
store = ArtifactStore(Path(sys.argv[1]))
for chunks in ([bytes(1_000_000)], [b"x"] * 66_000, [bytes(65_530), bytes(7)]):
    try:
        store.put(chunks)
    except StorageFailed as error:
        print(error, [path.name for path in store.folder.rglob("*")])
print(store.put([bytes(65536)]).size_bytes)
"""


class Disk:
    """A small file system of its own, with the artifacts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)


@pytest.fixture
def disk(environment: dict[str, str]) -> Iterator[Disk]:
    """A disk that can be filled, and made read-only; only root can mount one."""
    folder = settings().artifacts_folder
    folder.mkdir()
    options = ["-o", "size=1m", "lethe-test", folder]
    mounted = (
        os.geteuid() == 0 and not subprocess.run(["mount", "-t", "tmpfs", *options]).returncode
    )
    if not mounted:
        pytest.skip("only root mounts a disk, and not in every container")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


FAULTS: dict[str, tuple[Callable[[Disk], None], Callable[[Disk], None], str]] = {
    "full": (Disk.fill, Disk.free, "No space left on device"),
    "read-only": (
        lambda disk: disk.remount("ro"),
        lambda disk: disk.remount("rw"),
        "Read-only file system",
    ),
}


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def half_written() -> list[Path]:
    return list(store().folder.glob(".incoming-*"))


def current(client: TestClient) -> tuple[int, bytes]:
    """The number of the current version, and its weights as they are downloaded."""
    answer = client.get("/v1/models/tiny/current/weights")
    assert answer.status_code == 200
    return client.get("/v1/models/tiny/current").json()["number"], answer.content


def requests(client: TestClient) -> list[str]:
    """Where the requests stand, the newest first."""
    return [one["status"] for one in client.get("/v1/deletion-requests").json()["items"]]


@pytest.mark.parametrize(("fault", "repair", "words"), FAULTS.values(), ids=FAULTS)
def test_a_job_whose_weights_cannot_be_stored_is_tried_again_until_they_can(
    disk: Disk,
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Disk], None],
    repair: Callable[[Disk], None],
    words: str,
) -> None:
    serve()
    job_id, before = job_for(*FORGOTTEN), current(client)
    train = recipe.train

    def train_meanwhile(*given: Any) -> None:
        train(*given)
        fault(disk)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "train", train_meanwhile)
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["version"]) == ("queued", None)
    assert job["error"] == f"StorageFailed: The artifact store answered: {words}."
    assert (requests(client), current(client)) == (["in_progress"], before)
    assert half_written() == []
    repair(disk)
    run.run(job_id)
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "published"
    assert (requests(client), current(client)[0]) == (["completed"], 2)
    assert scrub(store(), DAY).is_clean


def test_a_disk_that_stays_full_needs_attention_and_holds_up_no_later_request(
    disk: Disk,
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    serve()
    job_id, before = job_for(*FORGOTTEN), current(client)
    disk.fill()
    for _ in range(3):
        run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert job["error"].startswith("Gave up after 2 attempts: StorageFailed: ")
    # Noticed before hours of training.
    assert "has 0 bytes left" in job["error"]
    assert job["rungs"] == []
    assert (requests(client), current(client)) == (["needs_attention"], before)
    disk.free()
    run.run(job_for(*OTHERS))
    assert requests(client) == ["completed", "needs_attention"]
    assert current(client)[0] == 2


def test_a_ledger_that_cannot_be_stored_is_tried_again_and_leaves_nothing(
    disk: Disk, serve: Callable[..., UUID]
) -> None:
    ledger_id = begin(serve())
    disk.fill()
    ledgers.refresh(ledger_id)
    found = row(ledger_id)
    assert found.status == "computing"
    assert found.error == "StorageFailed: The artifact store answered: No space left on device."
    assert half_written() == []
    disk.free()
    ledgers.refresh(ledger_id)
    assert row(ledger_id).status == "ready"


def test_what_cannot_be_removed_from_a_read_only_disk_is_said(disk: Disk) -> None:
    unreferenced = store().path_of(store().put([b"nobody's"]).digest)
    left = store().folder / ".incoming-1"
    left.write_bytes(b"half")
    for path in (unreferenced, left):
        make_old(path)
    disk.remount("ro")
    report = scrub(store(), DAY, remove_leftovers=True)
    assert [one.removed for one in report.leftovers] == [False, False]
    assert all("Read-only file system" in (one.error or "") for one in report.leftovers)
    assert not report.is_clean
    disk.remount("rw")
    assert all(one.removed for one in scrub(store(), DAY, remove_leftovers=True).leftovers)
    assert [path.exists() for path in (unreferenced, left)] == [False, False]


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "altered": _flip,
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_parent_is_found_and_uploading_it_again_mends_it(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    stored: str,
    damage: Callable[[Path], None],
) -> None:
    serve()
    whole = current(client)
    damage(store().path_of(stored))
    job_id = job_for(*FORGOTTEN)
    run.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], requests(client)) == ("failed", ["needs_attention"])
    assert stored in job["error"]
    [found] = scrub(store(), DAY).damaged
    assert (found.need.model, found.need.version, found.need.digest) == ("tiny", 1, stored)
    uploaded = client.post(
        "/v1/checkpoints",
        content=whole[1],
        headers={"Content-Type": "application/vnd.safetensors"},
    )
    assert uploaded.json()["digest"] == stored
    assert (scrub(store(), DAY).is_clean, current(client)) == (True, whole)
    run.run(job_for(*OTHERS))
    assert requests(client) == ["completed", "needs_attention"]
    assert current(client)[0] == 2


def test_what_a_killed_writer_left_is_no_version_and_is_swept_up(
    client: TestClient,
    environment: dict[str, str],
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    command: list[Any] = [sys.executable, "-c", WRITER, str(job_id)]
    writer = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        make_old(path)
        assert scrub(store(), DAY, remove_leftovers=True).leftovers == ()  # it lives
        assert path.stat().st_size == 100_000
    finally:
        writer.kill()
        writer.communicate()
    assert half_written() == [path]
    with transaction() as session:
        expired = text("now() - interval '1 second'")
        session.execute(update(UnlearningJob).values(lease_expires_at=expired))
    with transaction() as session:
        outcome.expire(session, tries(5), DAY)
    run.run(job_id)
    assert (requests(client), current(client)[0]) == (["completed"], 2)
    report = scrub(store(), DAY, remove_leftovers=True)
    assert [(one.path, one.removed) for one in report.leftovers] == [(path, True)]
    assert report.is_clean
    assert not path.exists()


def test_what_the_system_does_not_let_grow_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    refused = "The artifact store answered: File too large. []"
    assert ended.stdout.splitlines() == [refused, refused, refused, "65536"]
