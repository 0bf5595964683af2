"""A client of the service: submit deletion requests, wait for them, fetch their receipts.

    with Client("https://lethe.example", key) as lethe:
        request = lethe.submit(["writer-017/scan-00342"], model="digits")
        request = lethe.wait(request.id, timeout=3600)
        Path("receipt.json").write_bytes(lethe.receipt(request.id))

Needs ``lethe[client]``, and nothing of the service. What this version does not know in an answer is
left out, so that a newer service does not break it.
"""

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2

from lethe._answers import (
    DeletionRequest,
    Erasure,
    Outcome,
    Version,
    Withdrawal,
    read_outcome,
    read_request,
)
from lethe._failures import (
    ClientError,
    FieldProblem,
    NotFinished,
    Refused,
    Unreachable,
    refusal,
)
from lethe._passing import PASSING, Pause, pause_after

__all__ = [
    "Client",
    "ClientError",
    "DeletionRequest",
    "Erasure",
    "FieldProblem",
    "NotFinished",
    "Outcome",
    "Refused",
    "Unreachable",
    "Version",
    "Withdrawal",
]

PATH = "/v1/deletion-requests"


class Client:
    """A connection to the service. Safe to share between threads; close it when done."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: float = 60.0,
        timeout: float = 30.0,
        verify: Any = True,
    ) -> None:
        """Take the address of the service and a key or token.

        Args:
            url: of the service, without a path.
            key: sent as the bearer; it needs the scopes of what is called.
            patience: seconds for which a call is tried again that met no service, or a busy one.
            timeout: seconds that one attempt may be silent.
            verify: as httpx takes it: False, or an `ssl.SSLContext`.

        """
        self._patience = patience
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "lethe-client"},
            timeout=timeout,
            verify=verify,
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(
        self,
        sample_ids: Iterable[str],
        *,
        model: str | None = None,
        regulation: str = "gdpr",
        reference: str | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> DeletionRequest:
        """Ask for samples to be forgotten. When this returns, the request is stored for good.

        Args:
            sample_ids: as the model's Recipe knows them, at most 10,000.
            model: limits the request to one; without it, all forget that were trained on them.
            regulation: sets the legal deadline.
            reference: your own for the case; kept as it is, so put no personal data here.
            reason: the ground; likewise.
            idempotency_key: of your own making, so that you can repeat the call after a crash of
                yours; without it one is made, which covers the repetitions within this call.

        Raises:
            Refused: the request is not acceptable.
            Unreachable: nobody can say whether it was stored; it holds the key to repeat it with.

        """
        key = idempotency_key or str(uuid4())
        body: dict[str, Any] = {"sample_ids": list(sample_ids), "regulation": regulation}
        given = {"model": model, "reference": reference, "reason": reason}
        body |= {name: value for name, value in given.items() if value is not None}
        try:
            answer = self._call("POST", PATH, json=body, headers={"Idempotency-Key": key})
        except Unreachable as error:
            raise Unreachable(str(error), key) from None
        return read_request(answer.json())

    def submit_many(
        self,
        lines: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str,
        first_line: int = 1,
    ) -> Iterator[Outcome]:
        """Submit many requests in one call, each a mapping like the body of a single one.

        Yields the outcome of each line, in order, once it is stored. When the connection breaks,
        repeat the call with the same lines and key: what was stored is answered again, and not
        stored twice. `first_line` leaves out what was answered before; give the lines from there.

        Raises:
            Refused: the whole call is not acceptable.
            Unreachable: the connection broke before all lines were answered.

        """

        def encoded() -> Iterator[bytes]:
            for line in lines:
                yield json.dumps(dict(line)).encode() + b"\n"

        headers = {"Idempotency-Key": idempotency_key, "Content-Type": "application/x-ndjson"}
        asked = {"first_line": first_line} if first_line != 1 else None
        try:
            with self._http.stream(
                "POST", PATH + ":bulk", content=encoded(), headers=headers, params=asked
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise refusal(answer.status_code, answer.content)
                whole = False
                for text in answer.iter_lines():
                    told = json.loads(text)
                    if "line" in told:
                        yield read_outcome(told)
                    elif "lines" in told:
                        whole = True
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise Unreachable(type(error).__name__, idempotency_key) from None
        if not whole:
            raise Unreachable("the answer was cut short", idempotency_key)

    def get(self, request_id: UUID) -> DeletionRequest:
        """Return where a request stands.

        Raises:
            Refused: there is none of this id that you may see.

        """
        return read_request(self._call("GET", f"{PATH}/{request_id}").json())

    def requests(self, **filters: str | datetime | None) -> Iterator[DeletionRequest]:
        """Return your requests, newest first; filters are those of the API, such as `status`."""
        given = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in filters.items()
            if value is not None
        }
        cursor: str | None = None
        while True:
            asked = given if cursor is None else {**given, "cursor": cursor}
            page = self._call("GET", PATH, params=asked).json()
            yield from (read_request(item) for item in page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def wait(self, request_id: UUID, timeout: float | None = None) -> DeletionRequest:
        """Wait until a request is finished, and return how it ended.

        Asks as often as the service suggests. One that needs attention is not finished: somebody
        has to see to it, and it goes on then.

        Args:
            request_id: of the request.
            timeout: in seconds; None for as long as it takes.

        Raises:
            NotFinished: the time is over.
            Refused: there is none of this id that you may see.
            Unreachable: the service does not answer.

        """
        ends_at = None if timeout is None else time.monotonic() + timeout
        known: DeletionRequest | None = None
        tag: str | None = None
        while True:
            headers = {} if tag is None else {"If-None-Match": tag}
            answer = self._call("GET", f"{PATH}/{request_id}", headers=headers)
            if answer.status_code != 304 or known is None:
                known, tag = read_request(answer.json()), answer.headers.get("ETag")
            if known.finished_at is not None:
                return known
            left = None if ends_at is None else ends_at - time.monotonic()
            if left is not None and left <= 0:
                raise NotFinished(known)
            pause = pause_after(answer.headers) or 1.0
            time.sleep(pause if left is None else min(pause, left))

    def cancel(self, request_id: UUID) -> Withdrawal:
        """Withdraw a request, and say for which models it was too late.

        Raises:
            Refused: nothing of it can be withdrawn any more, or it is not yours.

        """
        told = self._call("POST", f"{PATH}/{request_id}/cancel").json()
        return Withdrawal(
            read_request(told["request"]), tuple(told["cancelled"]), tuple(told["too_late"])
        )

    def receipt(self, request_id: UUID) -> bytes:
        """Return a finished request's receipt, for ``lethe verify``.

        Raises:
            Refused: the request is not finished, or not yours.

        """
        return self._call("GET", f"{PATH}/{request_id}/receipt").content

    def _call(self, verb: str, path: str, **given: Any) -> httpx2.Response:
        """Send a request that may be repeated, until it is answered or patience ends."""
        pauses = Pause(self._patience)
        while True:
            try:
                answer = self._http.request(verb, path, **given)
            except httpx2.TransportError as error:
                if not pauses.take(random.random()):  # noqa: S311  # no secret hangs on it
                    # From None: the request, which holds sample IDs, hangs on the cause.
                    raise Unreachable(type(error).__name__) from None
                continue
            if answer.status_code < 400:
                return answer
            suggested = pause_after(answer.headers)
            if answer.status_code not in PASSING or not pauses.take(
                random.random(),  # noqa: S311
                suggested,
            ):
                raise refusal(answer.status_code, answer.content)
