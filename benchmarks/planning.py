"""What a pass of the planner costs while very much is pending, and what memory it takes.

``python -m benchmarks.planning`` loads a private PostgreSQL with synthetic rows: digests of numbers
for samples, one request for each erasure. It takes some minutes and 10 GB of disk. A second
database holds a tenth of what is pending, for the same models with the same manifests; times on the
two are taken in turns and held against each other, so that what else the machine does falls on
both. The last line on stdout is one JSON object.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.planning_rows import Size, load
from embedded.commands import API, API_KEY, ID_KEY, MIGRATIONS
from embedded.server import HOST, free_port
from embedded.servers import Servers, remove
from embedded.supervisor import BROKER_URL, DATABASE_URL, READY_SECONDS, ROOT, command_line
from lethe.policy import Batching, Policy

# Requests before the memory of a process counts as that of one which has been running for a while.
WARM_UP = 200

Answer = dict[str, Any]


def main() -> int:
    """Run the benchmark and return the exit status."""
    arguments = _arguments()
    if arguments.scheduler:
        return _obey()
    size = Size(arguments.models, arguments.pending, arguments.manifest)
    keys = {API_KEY: secrets.token_hex(16), ID_KEY: secrets.token_hex(16)}
    known = [f"known-{number}" for number in range(WARM_UP + arguments.requests)]
    folder = Path(tempfile.gettempdir()).resolve() / f"lethe-planning-{secrets.token_hex(4)}"
    try:
        with Servers(folder, durable=False) as servers:
            servers.create_database("full")
            subprocess.run(  # noqa: S603  the service's own command
                command_line(MIGRATIONS, 0),
                cwd=ROOT,
                check=True,
                env=_environment(servers, "full", keys),
            )
            begun = time.monotonic()
            load(servers, size, known, keys[ID_KEY].encode())
            _say(f"loaded in {time.monotonic() - begun:.0f} s")
            found = _measure(servers, arguments, keys)
            found["api"] = _serve(servers, keys, known)
    finally:
        remove(folder)
    _report({**asdict(size), **found})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--pending", type=int, default=1_000_000, help="erasures of all models")
    parser.add_argument("--manifest", type=int, default=10_000_000, help="samples of all models")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--requests", type=int, default=1_000, help="that the API takes in")
    parser.add_argument("--scheduler", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(
    servers: Servers, arguments: argparse.Namespace, keys: dict[str, str]
) -> dict[str, Any]:
    each = arguments.pending // arguments.models
    never = Batching(
        # One short of a full batch, neither old nor urgent: nothing less than a count can tell.
        max_samples=each + 1,
        max_wait=timedelta(days=365),
        deadline_headroom=timedelta(0),
    )
    found: dict[str, Any] = {}
    with (
        closing(Scheduler(_environment(servers, "full", keys))) as full,
        closing(Scheduler(_environment(servers, "tenth", keys))) as tenth,
    ):
        both = [full, tenth]
        _set_batching(servers, Batching())
        found["rank"] = _in_turns(both, "due", arguments.passes, expected=arguments.models)
        _set_batching(servers, never)
        found["count"] = _in_turns(both, "due", arguments.passes, expected=0)
        # As many as there are to a model where the fewer are pending: the same job on both.
        _set_batching(servers, Batching(max_samples=max(each // 10, 1)))
        found["job"] = _in_turns(both, "job", arguments.passes, expected=1)
        _set_batching(servers, Batching())
        found["passes"] = [full.ask("pass") for _ in range(arguments.passes)]
    return found


def _in_turns(
    schedulers: Sequence["Scheduler"], what: str, times: int, *, expected: int
) -> list[list[Answer]]:
    turns = [[scheduler.ask(what) for scheduler in schedulers] for _ in range(times)]
    if any(answer["made"] != expected for turn in turns for answer in turn):
        raise RuntimeError(f"not the {what} that was to be measured")
    return turns


def _set_batching(servers: Servers, batching: Batching) -> None:
    policy = Policy(batching=batching).model_dump_json()
    for database in ("full", "tenth"):
        with servers.postgres.connect_as_admin(database) as connection:
            connection.execute("UPDATE registered_models SET policy = %s::jsonb", [policy])


def _environment(servers: Servers, database: str, keys: dict[str, str]) -> dict[str, str]:
    return {
        **os.environ,
        **keys,
        DATABASE_URL: servers.postgres.url_of(database),
        BROKER_URL: servers.broker_url,
        "LETHE_MODE": "embedded",
        "LETHE_ARTIFACTS_FOLDER": str(servers.folder / "artifacts"),
        "LETHE_LOG_LEVEL": "error",
    }


class Scheduler:
    """A process that plans on one database when it is told to."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Starts it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.planning", "--scheduler"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> Answer:
        """Have something done, and return what it took."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("started without pipes")
        print(what, file=self._process.stdin, flush=True)
        answer: Answer = json.loads(self._process.stdout.readline())
        _say(f"{what}: {answer}")
        return answer

    def close(self) -> None:
        """End it: it reads until its input ends."""
        self._process.communicate()


def _obey() -> int:
    """Do what the lines of the input say, with what the service's scheduler has loaded."""
    from app import logs, queue
    from app.db import transaction
    from app.deletions import planner
    from workers import tasks

    logs.set_up()
    asked: list[str] = []
    nudge = queue.nudge

    def count(task: str, row_id: Any = None) -> bool:
        asked.append(task)
        return nudge(task, row_id)

    queue.nudge = count

    def due() -> list[Any]:
        with transaction() as session:
            return planner.due(session)

    for line in sys.stdin:
        what = line.strip()
        models = due() if what == "job" else []
        asked.clear()
        begun = time.perf_counter()
        if what == "pass":
            tasks.plan()
            made = asked.count(queue.RUN_JOB)
        elif what == "due":
            made = len(due())
        else:
            with transaction() as session:
                made = int(planner.plan_model(session, models[0]) is not None)
        seconds = time.perf_counter() - begun
        taken = {"seconds": seconds, "made": made, "load": os.getloadavg()[0]}
        print(json.dumps({**taken, **_memory(os.getpid())}), flush=True)
    return 0


def _memory(pid: int) -> dict[str, float]:
    """MiB that a process has in memory, and the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {
        name: int(values[key].split()[0]) / 1024  # from kB
        for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))
    }


def _serve(servers: Servers, keys: dict[str, str], known: list[str]) -> dict[str, Any]:
    """Have the API take in a request for each known sample; return what its memory did."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603  the service's own command
        command_line(API, port), cwd=ROOT, env=_environment(servers, "full", keys)
    )
    headers = {"Authorization": f"Bearer {keys[API_KEY]}"}
    before: dict[str, float] = {}
    seconds: list[float] = []
    try:
        with httpx2.Client(
            base_url=f"http://{HOST}:{port}", headers=headers, trust_env=False, timeout=30
        ) as client:
            _wait_until_ready(client)
            for number, id_ in enumerate(known):
                if number == WARM_UP:
                    before = _memory(process.pid)
                begun = time.perf_counter()
                answer = client.post("/v1/deletion-requests", json={"sample_ids": [id_]})
                seconds.append(time.perf_counter() - begun)
                shown = client.get(answer.raise_for_status().headers["Location"]).json()
                if shown["status"] != "pending":
                    raise RuntimeError("the request found nothing, and measured nothing")
                client.get("/v1/deletion-requests").raise_for_status()
            after = _memory(process.pid)
    finally:
        process.terminate()
        process.wait()
    return {
        "requests": len(known) - WARM_UP,
        "seconds": statistics.median(seconds[WARM_UP:]),
        "before": before,
        "after": after,
    }


def _wait_until_ready(client: httpx2.Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the API did not become ready")


def _report(found: dict[str, Any]) -> None:
    print(f"{found['pending']:,} erasures pending of {found['models']:,} models; seconds")
    for kind in ("rank", "count", "job"):
        turns = found[kind]
        full, tenth = ([turn[of]["seconds"] for turn in turns] for of in (0, 1))
        ratios = [turn[0]["seconds"] / turn[1]["seconds"] for turn in turns]
        found[kind] = {"seconds": full, "of_a_tenth": tenth, "ratio": statistics.median(ratios)}
        print(f"{kind:8s} {_spread(full)}   {found[kind]['ratio']:.2f} times a tenth's")
    passes, api = found["passes"], found["api"]
    load = statistics.median(one["load"] for one in passes)
    print(f"pass     {_spread([one['seconds'] for one in passes])}   at a load of {load:.1f}")
    jobs = sorted(one["made"] for one in passes)
    print(f"jobs of a pass: {jobs[0]} to {jobs[-1]}, median {statistics.median(jobs)}")
    first, last = passes[0]["peak"], passes[-1]["peak"]
    print(f"planner's memory: {first:.0f} MiB after the first pass, at most {last:.0f} MiB")
    print(
        f"API's memory: {api['before']['rss']:.0f} MiB after {WARM_UP} requests, "
        f"{api['after']['rss']:.0f} MiB after {api['requests']:,} more, "
        f"at most {api['after']['peak']:.0f} MiB; {api['seconds'] * 1e3:.0f} ms a request"
    )
    print(json.dumps(found))


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.3f}   [{ordered[0]:.3f}, {ordered[-1]:.3f}]"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
