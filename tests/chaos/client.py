"""A client that goes on asking until a service that dies now and then has answered."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx2

from tests.chaos.fleet import Fleet
from tests.chaos.history import Asked, History

REQUESTS = "/v1/deletion-requests"
TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = 0.1
# A service that gives no answer for so long will not give one any more.
PATIENCE_SECONDS = 120.0


class NoAnswer(Exception):
    """The service did not answer in all the time that it was given."""


class Client:
    """One thread's connection to the API."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        """Connect at the first call."""
        self._http = httpx2.Client(
            base_url=fleet.url,
            headers=fleet.client_headers,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )
        self._history = history

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def once(self, method: str, path: str, **arguments: Any) -> httpx2.Response | None:
        """Return the answer; None if there was none, or one that says nothing of the request."""
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx2.HTTPError:
            return None
        return None if answer.status_code >= 500 else answer

    def until_answered(
        self, method: str, path: str, stop: threading.Event | None = None, **arguments: Any
    ) -> httpx2.Response | None:
        """Ask again until there is an answer; None if told to stop first.

        Raises:
            NoAnswer: there was none in two minutes.

        """
        stop = stop or threading.Event()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not stop.is_set():
            answer = self.once(method, path, **arguments)
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                raise NoAnswer(f"{method} {path}")
            stop.wait(PAUSE_SECONDS)
        return None

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of an answer, asked for until it comes.

        Raises:
            NoAnswer: none came, or one that refuses.

        """
        answer = self.until_answered("GET", path, params=params)
        if answer is None or not answer.is_success:
            raise NoAnswer(f"GET {path}: {answer and answer.status_code}")
        return answer.json()

    def submit(self, asked: Asked, stop: threading.Event | None = None) -> str | None:
        """Send a request under its key until it is answered; return its id, None if refused."""
        self._history.ask(asked)
        answer = self.until_answered(
            "POST", REQUESTS, stop, json=asked.body, headers={"Idempotency-Key": asked.key}
        )
        if answer is None or answer.status_code != httpx2.codes.ACCEPTED:
            return None
        request_id = str(answer.json()["id"])
        self._history.accept(asked.key, request_id)
        return request_id

    def withdraw(self, request_id: str) -> None:
        """Ask to cancel a request, once; without an answer it may have been heard or not."""
        self._history.withdrawals.add(request_id)
        answer = self.once("POST", f"{REQUESTS}/{request_id}/cancel")
        if answer is not None and answer.is_success:
            told: Mapping[str, Any] = answer.json()
            self._history.withdraw(request_id, told["cancelled"], told["too_late"])

    def look_at(self, request_id: str) -> str | None:
        """Note where a request stands, if the service answers."""
        answer = self.once("GET", f"{REQUESTS}/{request_id}")
        if answer is None or not answer.is_success:
            return None
        status = str(answer.json()["status"])
        self._history.see_status(request_id, status)
        return status
