"""The broker may be away, cut off or emptied: work waits one planning interval, and goes on.

A model whose recipe does not exist is the probe: a worker rejects it as soon as it hears of it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

import httpx2
import pytest
import redis
import torch
from safetensors.torch import save

from embedded.servers import Servers, remove, temporary_place, temporary_servers
from embedded.supervisor import Supervisor
from tests.conftest import API_KEY
from tests.proxy import Proxy, Way

INTERVAL_SECONDS = 5.0  # the default
NUMBERS = count(1)


@dataclass(frozen=True)
class Service:
    """A running service whose broker is behind a proxy."""

    servers: Servers
    proxy: Proxy
    supervisor: Supervisor
    http: httpx2.Client
    checkpoint: str

    def register(self) -> Callable[[], bool]:
        """Register a model; return what tells whether a worker has seen it."""
        name = f"probe-{next(NUMBERS)}"
        body = {"name": name, "recipe": "none-such", "checkpoint": self.checkpoint}
        answer = self.http.post("/v1/models", json=body)
        assert answer.status_code == 202, answer.text

        def seen() -> bool:
            return bool(self.http.get(f"/v1/models/{name}").json()["status"] == "rejected")

        return seen


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for a condition; return how many seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.02)  # the interval of a poll; the condition is above
    return time.monotonic() - started


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    folder = temporary_place() / "lethe-broker"
    remove(folder)
    with temporary_servers() as servers, pytest.MonkeyPatch.context() as patch:
        broker = urlsplit(servers.broker_url)
        assert broker.hostname is not None
        assert broker.port is not None
        with Proxy(broker.hostname, broker.port) as proxy:
            url = servers.broker_url.replace(f":{broker.port}", f":{proxy.port}")
            patch.setenv("LETHE_DATABASE_URL", servers.create_database("broker"))
            patch.setenv("LETHE_BROKER_URL", url)
            patch.setenv("LETHE_PLAN_INTERVAL", str(INTERVAL_SECONDS))
            with Supervisor(folder, port=0, durable=False, api_key=API_KEY) as supervisor:
                headers = {"Authorization": f"Bearer {API_KEY}"}
                http = httpx2.Client(base_url=supervisor.url, headers=headers, timeout=30)
                with http:
                    stored = http.post("/v1/checkpoints", content=save({"w": torch.zeros(1)}))
                    running = Service(servers, proxy, supervisor, http, stored.json()["digest"])
                    until(running.register(), 60)  # everything has started
                    yield running
    remove(folder)


def test_a_broker_that_was_stopped_delays_work_by_one_planning_interval(service: Service) -> None:
    service.proxy.be(Way.REFUSED)
    seen = service.register()
    before = service.proxy.refusals
    # Long enough for attempts whose pauses grow to have become rare.
    until(lambda: service.proxy.refusals >= before + 15, 60)
    assert not seen()
    service.proxy.be(Way.OPEN)
    assert until(seen, 60) <= INTERVAL_SECONDS


def test_a_broker_that_was_cut_off_delays_work_by_one_planning_interval(service: Service) -> None:
    service.proxy.be(Way.SWALLOWED)
    seen = service.register()  # and the caller is answered meanwhile
    assert not seen()
    service.proxy.be(Way.OPEN)
    assert until(seen, 60) <= INTERVAL_SECONDS


def test_a_broker_that_was_emptied_delays_work_by_one_planning_interval(service: Service) -> None:
    worker = service.supervisor.processes()["worker"]
    with redis.Redis.from_url(service.servers.broker_url) as broker:
        os.killpg(worker, signal.SIGSTOP)
        try:
            seen = service.register()
            until(lambda: bool(broker.llen("jobs")), 10)
            broker.flushall()
        finally:
            os.killpg(worker, signal.SIGCONT)
    assert until(seen, 60) <= INTERVAL_SECONDS


def test_a_broker_that_was_killed_delays_work_by_one_planning_interval(service: Service) -> None:
    service.servers.valkey.kill()
    seen = service.register()
    service.servers.valkey.start()
    assert until(seen, 60) <= INTERVAL_SECONDS
