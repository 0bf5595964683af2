"""Where things can stand; ``app.lifecycle`` says how they move."""

from enum import StrEnum


class ModelStatus(StrEnum):
    """Where a registered model stands."""

    CHECKING = "checking"
    READY = "ready"
    REJECTED = "rejected"


class VersionStatus(StrEnum):
    """Where a model version stands."""

    CURRENT = "current"
    WITHDRAWN = "withdrawn"
    PURGED = "purged"


class RequestStatus(StrEnum):
    """Where the promise to a person stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    NOTHING_FOUND = "nothing_found"
    NEEDS_ATTENTION = "needs_attention"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class ErasureStatus(StrEnum):
    """Where one model's part of the promise stands."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    COMPLETED = "completed"
    NEEDS_ATTENTION = "needs_attention"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    """Where an unlearning job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RungOutcome(StrEnum):
    """What came of one method: a verdict, or no weights to judge."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"


class ReferenceStatus(StrEnum):
    """Where a model's references stand."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    DISCARDED = "discarded"


class LedgerStatus(StrEnum):
    """Where a version's gradient ledger stands."""

    COMPUTING = "computing"
    READY = "ready"
    FAILED = "failed"
    VOID = "void"
