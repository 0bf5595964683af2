"""Which events a stream tells, and how much of each.

Whether an entry is told depends on the entries before it alone. So a stream that is resumed, on
whatever process and however late, tells what it would have told without the break.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol
from uuid import UUID

from app.events.reading import Told
from app.statuses import JobStatus, RequestStatus

_REQUEST_ENDS = frozenset(
    f"deletion_request.{status}"
    for status in (
        RequestStatus.COMPLETED,
        RequestStatus.NOTHING_FOUND,
        RequestStatus.REJECTED,
        RequestStatus.CANCELLED,
    )
)
# A job that published ends with its version, which is told after it.
_JOB_ENDS = frozenset(
    [
        "version.current",
        *(f"job.{status}" for status in (JobStatus.REFUSED, JobStatus.FAILED, JobStatus.CANCELLED)),
    ]
)

# What a client may know of its own requests. The rest tells of others, whose erasures share the
# job: how many they are, that one was withdrawn, that a batch was split, what its data looked like.
_OWN: Mapping[str, Collection[str]] = {
    "erasure": (
        *("request", "model", "samples", "job", "version", "digest", "guarantee", "verdict"),
        *("reason", "withdrawn", "retried", "by"),
    ),
    "job": (),
    "version": ("model", "model_name", "number", "digest", "method", "guarantee", "verdict"),
}


class Watch(Protocol):
    """What a stream is about; it is shown every entry that may concern it, in order."""

    ends: bool
    """Whether nothing more is expected after what was shown."""

    def shows(self, told: Told) -> bool:
        """Take note of an entry, and say whether it is told."""

    def follows(self, job_id: UUID, /) -> bool:
        """Tell whether this job's progress is told now."""


class RequestWatch:
    """One request, its erasures, and their jobs while they are in them.

    A job's entries are told from the one after which an erasure is in it, until it has left.
    """

    def __init__(self, request_id: UUID) -> None:
        """Begin before the request's first entry."""
        self.ends = False
        self._request_id = request_id
        self._jobs: dict[UUID, UUID] = {}

    def shows(self, told: Told) -> bool:
        """Take note of an entry, and say whether it is told."""
        if told.request_id != self._request_id:
            return told.job_id in self._jobs.values()
        if told.event == "erasure.scheduled":
            self._jobs[told.subject] = UUID(told.facts["job"])
        elif told.of == "erasure":
            self._jobs.pop(told.subject, None)
        elif told.of == "deletion_request":
            # The last one counts: what was reopened goes on.
            self.ends = told.event in _REQUEST_ENDS
        return True

    def follows(self, job_id: UUID, /) -> bool:
        """Tell whether this job's progress is told now."""
        return job_id in self._jobs.values()


class JobWatch:
    """One job and the version that it published."""

    def __init__(self, job_id: UUID) -> None:
        """Begin before the job's first entry."""
        self.ends = False
        self._job_id = job_id

    def shows(self, told: Told) -> bool:
        """Take note of an entry, and say whether it is told."""
        if told.job_id != self._job_id:
            return False
        self.ends = self.ends or told.event in _JOB_ENDS
        return True

    def follows(self, job_id: UUID, /) -> bool:
        """Tell whether this job's progress is told now."""
        return job_id == self._job_id and not self.ends


class FeedWatch:
    """Everything, or what is about the requests of one client: not the jobs, which it shares."""

    ends = False

    def __init__(self, only_of: str | None) -> None:
        """Take the client whose requests it may see, None for all."""
        self._only_of = only_of

    def shows(self, told: Told) -> bool:
        """Take note of an entry, and say whether it is told."""
        return self._only_of is None or told.client == self._only_of

    def follows(self, _: UUID, /) -> bool:
        """Tell whether this job's progress is told now."""
        return self._only_of is None


def facts_for(told: Told, *, wide: bool) -> Mapping[str, Any]:
    """Return the facts that a reader may see: all, or what concerns its own requests."""
    if wide or told.of not in _OWN:
        return told.facts
    allowed = _OWN[told.of]
    return {name: value for name, value in told.facts.items() if name in allowed}
