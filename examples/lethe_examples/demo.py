"""The whole path on this machine: train, register, ask to forget, watch, compare, check the proofs.

``python -m lethe_examples.demo [--kill-worker]``; the last line is one JSON object. Nothing is
faked: where verification refuses a method, the demo says so and the ladder climbs.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import torch

from embedded.servers import remove
from embedded.supervisor import Supervisor
from lethe.policy import Batching, Debt, Policy, References
from lethe.verify.reasons import NotProven
from lethe_examples import comparison, proofs
from lethe_examples.digits import Digits
from lethe_examples.train import train

FOLDER = Path(".lethe-demo")
USERS = 8
PATIENCE_SECONDS = 240.0
# Short, so that a killed worker's job is claimed again while somebody watches.
SETTINGS = {"LETHE_LEASE": "4", "LETHE_PLAN_INTERVAL": "1", "LETHE_TORCH_THREADS": "1"}
POLICY = Policy(
    batching=Batching(max_wait=timedelta(seconds=2)),
    # Eight of them take some seconds on 600 images.
    references=References(count=8),
    # Eight users are a sixth of these data; a retrain behind the answer is not what is shown here.
    debt=Debt(max_share=0.5),
)


class DemoFailed(Exception):
    """A step did not happen; the message says which."""


@dataclass(frozen=True, slots=True)
class Api:
    """The service over HTTP."""

    http: httpx2.Client

    def get(self, path: str, **params: object) -> Any:
        """Return the JSON that a path answers."""
        answer = self.http.get(path, params=params)  # type: ignore[arg-type]
        if answer.is_error:
            raise DemoFailed(f"GET {path} answered {answer.status_code}: {answer.text}")
        return answer.json()

    def fetch(self, path: str) -> bytes:
        """Return the bytes that a path answers."""
        answer = self.http.get(path)
        if answer.is_error:
            raise DemoFailed(f"GET {path} answered {answer.status_code}: {answer.text}")
        return answer.content

    def post(self, path: str, *, key: str | None = None, **content: Any) -> httpx2.Response:
        """Send something and return the answer."""
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.http.post(path, headers=headers, **content)
        if answer.is_error:
            raise DemoFailed(f"POST {path} answered {answer.status_code}: {answer.text}")
        return answer

    def wait(self, what: str, path: str, done: Callable[[Any], bool]) -> Any:
        """Ask until an answer is as wanted, and show what changes meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        shown = ""
        while time.monotonic() < deadline:
            found = self.get(path)
            if (state := _state(found)) and state != shown:
                say(f"   {state}")
                shown = state
            if done(found):
                return found
            time.sleep(0.1)  # the interval of a poll; the condition is above
        raise DemoFailed(f"{what} took more than {PATIENCE_SECONDS:.0f} s")


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lethe_examples.demo", description=__doc__)
    parser.add_argument("--kill-worker", action="store_true", help="SIGKILL the worker in mid-job")
    arguments = parser.parse_args()
    started = time.monotonic()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        checkpoint = trained(FOLDER / "digits.safetensors")
        # A demo begins with an empty service; `make serve` keeps its state in another folder.
        remove(FOLDER / "service")
        key = secrets.token_hex(32)  # known to this process alone; the service has its digest
        with Supervisor(FOLDER / "service", port=0, api_key=key) as service:
            say(f"2. The service runs at {service.url}; its logs are in {service.logs}")
            headers = {"Authorization": f"Bearer {key}"}
            with httpx2.Client(base_url=service.url, headers=headers, timeout=30) as http:
                kill = (lambda: service.kill("worker")) if arguments.kill_worker else None
                worker = service.processes()["worker"]
                result = walk(Api(http), checkpoint, worker, kill)
    except (DemoFailed, NotProven) as error:
        say(f"The demo failed: {error}")
        return 1
    print(json.dumps({**result, "seconds": round(time.monotonic() - started, 1)}))
    return 0


def trained(checkpoint: Path) -> Path:
    """Train the digits model, unless an earlier demo did."""
    if checkpoint.exists():
        say(f"1. The digits model was trained before: {checkpoint}")
        return checkpoint
    say("1. Training the digits model")
    torch.set_num_threads(1)  # the model is too small for more, and others may be busy
    checkpoint.parent.mkdir(exist_ok=True)
    report = train("digits", 0, checkpoint)
    say(f"   {report['seconds']} s, {report['training_metric']:.3f} of its training data right")
    return checkpoint


def walk(
    api: Api, checkpoint: Path, worker: int, kill: Callable[[], None] | None
) -> dict[str, Any]:
    """Go the whole path once; returns what the last line reports."""
    register(api, checkpoint)
    pinned = api.fetch("/v1/audit/checkpoint").decode()
    locations, forgotten = ask(api)
    job = watch(api, worker, kill)
    requests = [
        api.wait("a request", location, lambda r: r["finished_at"] is not None)
        for location in locations
    ]
    versions = api.get("/v1/models/digits/versions")["items"]
    if [version["number"] for version in versions] != [1, 2]:
        raise DemoFailed(f"there should be exactly one new version, not {len(versions) - 1}")
    say("6. What the new version shows, measured here on the downloaded weights:")
    weights = api.fetch("/v1/models/digits/current/weights")
    compared = comparison.compare(checkpoint, weights, forgotten, job)
    say(compared.table())
    say(f"   new version {versions[1]['number']}: {versions[1]['digest']}")
    say(f"   guarantee: {versions[1]['guarantee']}, by {versions[1]['method']}")
    say("7. The evidence, checked offline with lethe.verify:")
    evidence = FOLDER / "evidence"
    remove(evidence)
    evidence.mkdir()
    for line in proofs.check(api.fetch, pinned, requests, weights, evidence):
        say(f"   {line}")
    say("8. The job once more, from its record, in another process:")
    repeat(job["id"])
    return {
        "requests": len(requests),
        "forgotten": job["sample_count"],
        "jobs": len(api.get("/v1/jobs")["items"]),
        "version": versions[1]["number"],
        "verdict": job["rungs"][-1]["outcome"],
        "receipt_verified": True,
        "reproduced": True,
    }


def repeat(job_id: str) -> None:
    """Have the operator's command repeat a published job and compare."""
    command = [sys.executable, "-m", "embedded", "lethe", "--folder", str(FOLDER / "service")]
    done = subprocess.run([*command, "rerun", job_id], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        say(f"   {line}")
    if done.returncode != 0:
        raise DemoFailed(f"the job was not reproduced: {done.stderr.strip()[-500:]}")


def register(api: Api, checkpoint: Path) -> None:
    """Upload the checkpoint, register the model and wait for its check."""
    say("3. Registering the model over HTTP")
    with checkpoint.open("rb") as file:
        digest = api.post("/v1/checkpoints", content=file).json()["digest"]
    body = {
        "name": "digits",
        "recipe": "digits",
        "checkpoint": digest,
        "policy": POLICY.model_dump(mode="json"),
    }
    location = api.post("/v1/models", json=body).headers["Location"]
    model = api.wait("the check", location, lambda m: m["status"] != "checking")
    if model["status"] != "ready":
        raise DemoFailed(f"the model was rejected: {model['problems']}")
    say(f"   {model['sample_count']} training samples, version 1 is {digest}")


def ask(api: Api) -> tuple[list[str], set[str]]:
    """Send the users' requests; returns where they are and which samples they name."""
    by_user: dict[str, list[str]] = {}
    for sample_id in Digits().sample_ids():
        by_user.setdefault(sample_id.split("/")[0], []).append(sample_id)
    users = secrets.SystemRandom().sample(sorted(by_user), USERS)
    say(f"4. {USERS} users ask to be forgotten, one of them twice; a stranger asks, too")
    locations = []
    for user in users:
        answer = _submit(api, by_user[user], key=f"erase {user}")
        locations.append(answer.headers["Location"])
        say(f"   a user with {len(by_user[user])} samples: {_state(answer.json())}")
    again = _submit(api, by_user[users[0]], key=f"erase {users[0]}")
    if again.headers["Location"] != locations[0]:
        raise DemoFailed("a repeated request made a second promise")
    say("   the first user again, same Idempotency-Key: the same request, nothing doubled")
    stranger = _submit(api, ["writer-999/scan-99999"], key="erase a stranger")
    if stranger.json()["status"] != "nothing_found":
        raise DemoFailed("an unknown sample was not answered with nothing_found")
    locations.append(stranger.headers["Location"])
    say("   somebody nobody knows: nothing_found")
    return locations, {sample_id for user in users for sample_id in by_user[user]}


def watch(api: Api, worker: int, kill: Callable[[], None] | None) -> Any:
    """Follow the one job to its end; kill the worker in the middle of it if asked to."""
    say(f"5. One job for all of them (the worker is process {worker}: kill -9 it if you like)")
    jobs = api.wait("planning", "/v1/jobs", lambda page: bool(page["items"]))["items"]
    path = f"/v1/jobs/{jobs[0]['id']}"
    if kill is not None:
        api.wait("the job's start", path, lambda job: job["status"] == "running")
        kill()
        say("   SIGKILL to the worker in mid-job; its lease runs out, another claim follows")
    job = api.wait("the job", path, lambda job: job["finished_at"] is not None)
    for rung in job["rungs"]:
        for line in comparison.describe_rung(rung):
            say(f"   {line}")
    if job["status"] != "published":
        raise DemoFailed(f"the job was {job['status']}: {job['error']}")
    return job


def say(line: str) -> None:
    """Tell the person who watches; standard output is left to the result."""
    print(line, file=sys.stderr, flush=True)


def _submit(api: Api, sample_ids: list[str], key: str) -> httpx2.Response:
    return api.post("/v1/deletion-requests", json={"sample_ids": sample_ids}, key=key)


def _state(found: Any) -> str:
    if "status" not in found:
        return ""
    progress = found.get("progress")
    doing = f" {progress['phase']} {progress['fraction']:.0%}" if progress else ""
    attempt = f", attempt {found['attempts']}" if found.get("attempts") else ""
    return f"{found['status']}{doing}{attempt}"


if __name__ == "__main__":
    sys.exit(main())
