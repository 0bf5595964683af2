"""What the clients of a run asked, were told and saw: all that the checker takes for granted."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Asked:
    """A deletion request as a client sent it, under its Idempotency-Key."""

    key: str
    sample_ids: tuple[str, ...]
    model: str | None
    reference: str | None = None

    @property
    def body(self) -> dict[str, object]:
        """The JSON body."""
        body: dict[str, object] = {"sample_ids": list(self.sample_ids)}
        if self.model is not None:
            body["model"] = self.model
        if self.reference is not None:
            body["reference"] = self.reference
        return body


@dataclass(slots=True)
class History:
    """Written by the threads of the load, read by the checker when these have ended."""

    asked: dict[str, Asked] = field(default_factory=dict)
    """Every request, by its key; some were perhaps never taken in."""
    accepted: dict[str, str] = field(default_factory=dict)
    """The id in the answer 202, by the key."""
    withdrawals: set[str] = field(default_factory=set)
    """Requests whose withdrawal was asked for, whatever the answer."""
    withdrawn: dict[str, set[str]] = field(default_factory=dict)
    """Models that an answer named as cancelled, by the request."""
    too_late: dict[str, set[str]] = field(default_factory=dict)
    heads: dict[int, str] = field(default_factory=dict)
    """Every tree head that was shown: its root by its size."""
    statuses: dict[str, list[str]] = field(default_factory=dict)
    """What a request's status was seen to be, one after the other, without repetitions."""
    job_statuses: dict[str, list[str]] = field(default_factory=dict)
    contradictions: list[tuple[str, str]] = field(default_factory=list)
    """Answers that cannot both be true, as they came; each after the kind of violation it is."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, asked: Asked) -> None:
        """Note a request before it is sent."""
        with self._lock:
            self.asked[asked.key] = asked

    def accept(self, key: str, request_id: str) -> None:
        """Note an answer 202; one key has one request."""
        with self._lock:
            earlier = self.accepted.setdefault(key, request_id)
            if earlier != request_id:
                what = f"one key gave the requests {earlier} and {request_id}"
                self.contradictions.append(("doubled", what))

    def withdraw(self, request_id: str, cancelled: Sequence[str], late: Sequence[str]) -> None:
        """Note the answer to a withdrawal."""
        with self._lock:
            self.withdrawn.setdefault(request_id, set()).update(cancelled)
            self.too_late.setdefault(request_id, set()).update(late)

    def see_head(self, size: int, root: str) -> None:
        """Note a tree head; one size has one root."""
        with self._lock:
            if self.heads.setdefault(size, root) != root:
                self.contradictions.append(("log", f"two tree heads of size {size} were shown"))

    def see_status(self, request_id: str, status: str) -> None:
        """Note where a request stands, if it moved."""
        _see(self.statuses, request_id, status)

    def see_job_status(self, job_id: str, status: str) -> None:
        """Note where a job stands, if it moved."""
        _see(self.job_statuses, job_id, status)


def _see(seen: dict[str, list[str]], id_: str, status: str) -> None:
    # One thread watches, so that the order is that in which the answers came.
    statuses = seen.setdefault(id_, [])
    if not statuses or statuses[-1] != status:
        statuses.append(status)
