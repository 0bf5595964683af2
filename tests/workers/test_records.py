"""What is kept of a job: the numbers bit by bit, with the version or not at all."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from torch import Tensor

from app.db import transaction
from app.jobs import records
from app.jobs.leases import Job
from app.tables import JobRecord
from tests.app.working import expire, let_leases_run_out
from workers import ladder, run, software
from workers.artifacts import Corrupted
from workers.records import dump_losses, load_losses
from workers.unlearning.references import Expected, Judges

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
# A NaN with a payload, both zeros, the smallest and the largest numbers.
AWKWARD = struct.unpack(
    "<6d", struct.pack("<Q5d", 0x7FF8_0000_0000_BEEF, -0.0, 0.0, 5e-324, 1e308, -1 / 3)
)


def expected(shift: float, count: int) -> Expected:
    values = torch.tensor(AWKWARD[:count], dtype=torch.float64)
    return Expected(values + shift, values - shift)


def bits(tensor: Tensor) -> bytes:
    assert tensor.dtype == torch.float64
    return tensor.numpy().tobytes()


def test_numbers_about_samples_come_back_bit_by_bit() -> None:
    targets = torch.tensor(AWKWARD, dtype=torch.float64)
    judges = Judges(forgotten=expected(0.0, 6), unseen=expected(1e-17, 4))
    content = dump_losses(targets, judges)
    found, found_judges = load_losses(content)
    assert found is not None
    assert found_judges is not None
    assert bits(found) == bits(targets) == struct.pack("<6d", *AWKWARD)
    for side in ("forgotten", "unseen"):
        for what in ("mean", "spread"):
            of = [getattr(getattr(each, side), what) for each in (found_judges, judges)]
            assert bits(of[0]) == bits(of[1])
    assert dump_losses(targets, judges) == content


def test_what_was_not_given_is_not_kept() -> None:
    targets = torch.ones(3, dtype=torch.float64)
    assert dump_losses(None, None) is None
    assert load_losses(None) == (None, None)
    found, judges = load_losses(dump_losses(targets, None))
    assert found is not None
    assert found.equal(targets)
    assert judges is None
    empty = torch.empty(0, dtype=torch.float64)
    nobody = Judges(Expected(empty, empty), Expected(empty, empty))
    found, judges = load_losses(dump_losses(None, nobody))
    assert found is None
    assert judges is not None
    assert judges.unseen.mean.shape == (0,)


def test_bytes_of_another_kind_are_refused() -> None:
    content = dump_losses(torch.ones(3, dtype=torch.float64), None)
    assert content is not None
    other = content.replace(b"losses-v1", b"losses-v2")
    assert other != content
    for broken in (content[:-1], content + b"\0", b"", b"\x80\x04N.", other):
        with pytest.raises(Corrupted, match="recorded losses"):
            load_losses(broken)
    unknown = content.replace(b'"targets"', b'"tarGets"')
    with pytest.raises(Corrupted, match="recorded losses"):
        load_losses(unknown)


def kept() -> int:
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(JobRecord)) or 0


def test_a_version_is_published_with_its_record_or_not_at_all(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve()
    job_id = job_for(*FORGOTTEN)
    with monkeypatch.context() as patch:

        def away(*_: Any) -> None:
            raise OSError

        patch.setattr(records, "keep", away)
        with pytest.raises(OSError):  # noqa: PT011  # it has no words
            run.run(job_id)
    assert (client.get("/v1/models/tiny/current").json()["number"], kept()) == (1, 0)
    let_leases_run_out()
    expire()
    run.run(job_id)
    assert (client.get("/v1/models/tiny/current").json()["number"], kept()) == (2, 1)


def test_a_record_says_what_the_job_was_given_and_nothing_of_single_samples(
    client: TestClient,
    serve: Callable[..., UUID],
    job_for: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claimed: list[Job] = []
    climb = ladder.climb

    def spy(job: Job, *rest: Any) -> Any:
        claimed.append(job)
        return climb(job, *rest)

    monkeypatch.setattr(run, "climb", spy)
    serve()
    run.run(job_for(*FORGOTTEN[:3]))
    second = job_for(*FORGOTTEN[3:])
    run.run(second)
    with transaction() as session:
        inputs = session.get_one(JobRecord, second).inputs
        rebuilt = records.find(session, second).job
        job = claimed[-1]
        # As a worker had it, by the claim itself.
        for name in ("forget_digests", "forgotten_digests", "policy", "seed", "parent_digest"):
            assert getattr(rebuilt, name) == getattr(job, name), name
        assert (rebuilt.batch_limit, rebuilt.rebase, rebuilt.attempt) == (None, False, 1)
    versions = client.get("/v1/models/tiny/versions").json()["items"]
    assert (inputs["parent_digest"], inputs["digest"]) == tuple(v["digest"] for v in versions[1:])
    assert (inputs["forget"], inputs["forgotten"], inputs["method"]) == (37, 3, "retrain")
    assert (inputs["tolerance"], inputs["ledger"], inputs["references"]) == (0.0, None, None)
    environment = inputs["environment"]
    assert environment["threads"] == torch.get_num_threads() == 1
    assert environment["torch"] == torch.__version__
    assert environment["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert (environment["device"], environment["code"][:7]) == ("cpu", "sha256:")
    assert "person-" not in json.dumps(inputs)
    assert not any(digest.hex() in json.dumps(inputs) for digest in job.forget_digests)


def test_the_code_version_is_that_of_each_file_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_up_package"
    (package / "inner").mkdir(parents=True)
    files = {"__init__.py": b"", "a.py": b"x = 1\n", "inner/b.py": b"y = 2\n"}
    for name, content in files.items():
        (package / name).write_bytes(content)
    (package / "notes.txt").write_bytes(b"not code")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(software, "PACKAGES", ("made_up_package",))

    def found() -> str:
        software.software.cache_clear()
        return software.software()["code"]

    whole = b"lethe code\0"
    for name, content in sorted(files.items()):
        for part in (f"made_up_package/{name}".encode(), content):
            whole += struct.pack(">Q", len(part)) + part
    first = found()
    assert first == "sha256:" + hashlib.sha256(whole).hexdigest()
    (package / "notes.txt").write_bytes(b"other notes")
    assert found() == first
    seen = {first}
    for change in (
        lambda: (package / "a.py").write_bytes(b"x = 2\n"),
        lambda: (package / "a.py").rename(package / "c.py"),
        lambda: (package / "inner" / "d.py").write_bytes(b""),
    ):
        change()
        seen.add(found())
    assert len(seen) == 4
    software.software.cache_clear()
