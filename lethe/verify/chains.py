"""Follow the versions of all models through a log: one chain for each, without forks."""

from dataclasses import dataclass, field
from uuid import UUID

from lethe.verify.entries import CURRENT, PURGED, WITHDRAWN, Entry, Version, read_version
from lethe.verify.lineage import check_commitment
from lethe.verify.reasons import NotProven, Reason


@dataclass(slots=True)
class Chains:
    """Where the versions stand after the entries taken so far."""

    newest: dict[UUID, Version] = field(default_factory=dict)
    """By model."""
    status: dict[UUID, str] = field(default_factory=dict)
    """By version: the last event about it."""

    def take(self, position: int, entry: Entry) -> None:
        """Take the next entry into account.

        Raises:
            NotProven: a version breaks the chain of its model.

        """
        try:
            if entry.event == CURRENT:
                self._publish(read_version(entry))
            elif entry.event == WITHDRAWN:
                self._end(entry, CURRENT)
            elif entry.event == PURGED:
                self._end(entry, WITHDRAWN)
        except NotProven as error:
            raise NotProven(Reason.LOG_CONTRADICTS, f"entry {position}: {error.detail}") from None

    def _publish(self, version: Version) -> None:
        parent = self.newest.get(version.model)
        if version.id in self.status:
            raise _broken(f"{version.label} became current twice")
        if version.number != (1 if parent is None else parent.number + 1):
            raise _broken(f"{version.label} does not come next")
        if parent is not None:
            if self.status[parent.id] == CURRENT:
                raise _broken(f"{version.label} became current beside its parent")
            if version.parent_digest != parent.digest:
                raise _broken(f"{version.label} names another parent")
            check_commitment(version, parent)
        self.newest[version.model] = version
        self.status[version.id] = CURRENT

    def _end(self, entry: Entry, before: str) -> None:
        if self.status.get(entry.subject) != before:
            raise _broken(f"{entry.event} does not follow {before}")
        self.status[entry.subject] = entry.event


def _broken(detail: str) -> NotProven:
    return NotProven(Reason.CHAIN_BROKEN, detail)
