"""The whole path over HTTP, with real processes, a real model, real data and real kills.

One service for the whole file; the tests build on one another in their order, as its life would.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import redis
import torch
from psycopg.sql import SQL, Identifier
from safetensors.torch import save

from embedded.servers import remove, temporary_place
from embedded.supervisor import Supervisor
from lethe_examples import classifier
from lethe_examples.digits import Digits
from lethe_examples.proofs import Fetch
from lethe_examples.proofs import check as check_proofs
from tests.commands import lethe, operate
from workers.artifacts import dump_state

REQUESTS = "/v1/deletion-requests"
# A wide margin, so that the first rung is enough: how well is judged is tested elsewhere.
POLICY = {
    "batching": {"max_wait": 0.5},
    "ladder": ["iau", "retrain"],
    "bounds": {"leak_margin": 0.3, "utility_budget": 0.3, "leak_left": 1.0},
    "references": {"count": 4},
    # Versions are counted here; a retrain in between would be one more.
    "debt": {"max_share": 1.0},
}
# Stands in a field that is stored as it is: shows that the search below finds what is there.
PLANTED = "PLANTED-reference"


class Journey:
    """A client of the running service that waits for conditions."""

    def __init__(self, service: Supervisor, key: str) -> None:
        self.service = service
        self.key = key
        self.heard: list[str] = []

    @property
    def http(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.service.url, headers=headers, timeout=30)

    def get(self, path: str, **params: Any) -> Any:
        with self.http as http:
            answer = http.get(path, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, **arguments: Any) -> httpx2.Response:
        with self.http as http:
            answer = http.post(path, **arguments)
        assert answer.is_success, answer.text
        return answer

    def until(self, path: str, done: Callable[[Any], bool], seconds: float = 90) -> Any:
        deadline = time.monotonic() + seconds
        while not done(found := self.get(path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)  # the interval of a poll; the condition is above
        return found

    def submit(self, *sample_ids: str, **more: Any) -> str:
        body = {"sample_ids": sample_ids, **more}
        return str(self.post(REQUESTS, json=body).headers["Location"])

    def listen(self, broker_url: str) -> None:
        """Keep every command that the broker gets."""
        with redis.Redis.from_url(broker_url).monitor() as monitor:
            try:
                for command in monitor.listen():
                    self.heard.append(json.dumps(command, default=str))
            except (redis.ConnectionError, ValueError, OSError):
                return  # the broker was stopped


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = temporary_place() / "lethe-journey"
    remove(folder)
    yield folder
    remove(folder)


@pytest.fixture(scope="module")
def journey(folder: Path) -> Iterator[Journey]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATABASE_URL", "BROKER_URL", "API_KEY", "API_KEY_DIGEST", "ID_KEY"):
            patch.delenv(f"LETHE_{name}", raising=False)
        patch.setenv("LETHE_LEASE", "5")
        patch.setenv("LETHE_PLAN_INTERVAL", "0.5")
        patch.setenv("LETHE_TORCH_THREADS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        with Supervisor(folder, port=0, durable=False) as service:
            key = service.take_new_key()
            assert key is not None
            yield Journey(service, key)


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """Weights of the digits model, trained for a moment only: the path is tested here."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Digits().build_model()
    classifier.fit(
        model, Digits().training_data(), seed=0, epochs=4, batch_size=64, learning_rate=3e-3
    )
    return dump_state(model.state_dict())


def samples(start: int, end: int) -> list[str]:
    return list(Digits().sample_ids()[start:end])


def register(journey: Journey, checkpoint: bytes, name: str, recipe: str = "digits") -> Any:
    digest = journey.post("/v1/checkpoints", content=checkpoint).json()["digest"]
    body = {"name": name, "recipe": recipe, "checkpoint": digest, "policy": POLICY}
    location = journey.post("/v1/models", json=body).headers["Location"]
    return journey.until(location, lambda model: model["status"] != "checking")


@pytest.mark.timeout(180)
def test_a_request_becomes_a_published_verified_version(
    journey: Journey, checkpoint: bytes, tmp_path: Path
) -> None:
    model = register(journey, checkpoint, "digits")
    assert (model["status"], model["sample_count"]) == ("ready", 600)
    with journey.http as http:
        pinned = http.get("/v1/audit/checkpoint").text
    wanted = [
        journey.submit(*samples(0, 30), reference=PLANTED),
        journey.submit(*samples(30, 60)),
        journey.submit("nobody/scan-0"),
    ]
    requests = [
        journey.until(where, lambda request: request["finished_at"] is not None) for where in wanted
    ]
    assert [r["status"] for r in requests] == ["completed", "completed", "nothing_found"]
    jobs = journey.get("/v1/jobs")["items"]
    assert [(job["status"], job["sample_count"]) for job in jobs] == [("published", 60)]
    with journey.http as http:
        weights = http.get("/v1/models/digits/current/weights").content
        fetch: Fetch = lambda path: http.get(path).content  # noqa: E731
        assert list(check_proofs(fetch, pinned, requests, weights, tmp_path))
    # Over the command line, too, and the job once more from its record.
    asked = [tmp_path / "receipt-1.json", "--key", tmp_path / "keys.json"]
    verified = lethe("verify", *asked, "--weights", tmp_path / "served.safetensors")
    assert (verified.returncode, "Not proven" in verified.stdout) == (0, True)
    again = operate(journey.service.folder, "rerun", jobs[0]["id"])
    assert (again.returncode, "reproduced" in again.stdout) == (0, True), again.stderr
    digest = "sha256:" + hashlib.sha256(weights).hexdigest()
    assert journey.get("/v1/models/digits/current")["digest"] == digest
    entries = journey.get("/v1/audit/entries", limit=200)["items"]
    events = [json.loads(entry["entry"])["event"] for entry in entries]
    # The job waited for the references, and none of the models outlived its numbers.
    assert events.count("reference.destroyed") >= 4
    assert events.index("references.ready") < events.index("job.queued")
    assert "ledger.ready" in events


@pytest.mark.timeout(180)
def test_a_worker_killed_in_mid_job_ends_in_exactly_one_new_version(journey: Journey) -> None:
    before = journey.get("/v1/models/digits/versions")["items"]
    where = journey.submit(*samples(60, 100))
    job = journey.until("/v1/jobs", lambda page: page["items"][0]["status"] == "running")
    journey.service.kill("worker")
    request = journey.until(where, lambda found: found["finished_at"] is not None)
    after = journey.get("/v1/models/digits/versions")["items"]
    assert [v["number"] for v in after] == [*(v["number"] for v in before), len(before) + 1]
    assert request["erasures"][0]["version"]["number"] == after[-1]["number"]
    done = journey.get(f"/v1/jobs/{job['items'][0]['id']}")
    assert done["status"] == "published"
    assert done["attempts"] >= 2  # more, if this machine stalls for a whole lease


@pytest.mark.timeout(180)
def test_a_broker_that_forgets_everything_delays_work_and_loses_nothing(journey: Journey) -> None:
    journey.service.kill("scheduler")
    journey.service.kill("valkey")  # it keeps nothing on disk: whatever was queued is gone
    where = journey.submit(*samples(100, 140))
    request = journey.until(where, lambda found: found["finished_at"] is not None)
    assert request["status"] == "completed"


@pytest.mark.timeout(180)
def test_models_that_cannot_be_served_are_rejected_with_every_reason(journey: Journey) -> None:
    misfit = save({"0.weight": torch.full((8, 1, 5, 5), float("nan"))})
    model = register(journey, misfit, "misfit")
    assert model["status"] == "rejected"
    assert len(model["problems"]) >= 2
    unknown = register(journey, misfit, "unknown", recipe="nowhere")
    assert unknown["status"] == "rejected"
    assert journey.get("/v1/models/digits/current")["number"] == 4


@pytest.mark.timeout(180)
def test_everything_survives_a_restart_of_the_service(journey: Journey) -> None:
    paths = [REQUESTS, "/v1/models", "/v1/jobs", "/v1/models/digits/versions", "/v1/audit/head"]
    # References of the last exact version are made behind everybody's back; let them come to rest.
    journey.until("/v1/models/digits", lambda model: model["references"]["status"] == "ready")
    before = [journey.get(path) for path in paths]
    journey.service.stop()
    journey.service.start()
    # The key of the first start goes on opening everything: the next line shows it.
    assert journey.service.take_new_key() is None
    assert [journey.get(path) for path in paths] == before
    where = journey.submit(*samples(130, 160))  # ten of them were forgotten before
    request = journey.until(where, lambda found: found["finished_at"] is not None)
    assert request["status"] == "completed"
    assert journey.get("/v1/jobs")["items"][0]["sample_count"] == 20
    assert journey.get("/v1/models/digits/current")["number"] == 5


def spellings(text: str) -> list[bytes]:
    raw = text.encode()
    return [
        raw,
        text.encode("utf-16-le"),
        json.dumps(text)[1:-1].replace("/", "\\/").encode(),
        raw.hex().encode(),
        base64.b64encode(raw).rstrip(b"=")[:-1],
        hashlib.sha256(raw).digest(),
        hashlib.sha256(raw).hexdigest().encode(),
    ]


def dump(url: str) -> Iterator[bytes]:
    """Every row of every table as text, whatever PostgreSQL compressed on its disk."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            rows = SQL("SELECT t::text FROM {} AS t").format(Identifier(table))
            for (row,) in connection.execute(rows):
                yield row.encode()


@pytest.mark.timeout(180)
def test_no_plaintext_sample_id_is_in_any_byte_that_the_system_wrote(
    journey: Journey, folder: Path
) -> None:
    database, broker = journey.service.urls
    listener = threading.Thread(target=journey.listen, args=(broker,))
    listener.start()
    asked = [*samples(160, 200), "nobody/scan-00000"]
    journey.submit(*asked[:-1])
    where = journey.submit(*asked)
    with journey.http as http:  # refusals are logged, too
        http.post(REQUESTS, json={"sample_ids": [asked[0]], asked[1]: 1})
        http.post(REQUESTS, content=b'{"sample_ids": ["' + asked[0].encode())
        http.get(f"/v1/models/{asked[0]}")
    journey.until(where, lambda found: found["finished_at"] is not None)
    rows = b"\n".join(dump(database))
    journey.service.stop()
    listener.join(timeout=30)
    assert any("lethe.run_job" in command for command in journey.heard)
    data = Path(folder / "data").resolve()
    written = {
        path.relative_to(base).as_posix(): path.read_bytes()
        for base in {folder.resolve(), data}
        for path in base.rglob("*")
        if path.is_file()
    }
    written |= {"rows": rows, "broker": "\n".join(journey.heard).encode()}
    names = " ".join(written)
    assert "artifacts/sha256" in names
    assert "pg_wal" in names
    assert "logs/worker.log" in names
    # The control: what was stored in plain words is found, on the disk and in the rows.
    assert [name for name, content in written.items() if PLANTED.encode() in content]
    assert PLANTED.encode() in rows
    # What every ID has in common, and all spellings of some: each search reads a hundred megabytes.
    wanted = [b"writer-0", b"/scan-0", *map(str.encode, asked[-1:])]
    for sample_id in (*samples(0, 1), asked[0], asked[-1]):
        wanted += spellings(sample_id)
    found = [name for name, content in written.items() for word in wanted if word in content]
    assert found == []
