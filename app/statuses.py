"""Where things can stand; ``app.moves`` says how they move."""

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
    HELD = "held"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    NOTHING_FOUND = "nothing_found"
    NEEDS_ATTENTION = "needs_attention"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class DecisionAction(StrEnum):
    """What somebody may decide about a request."""

    APPROVE = "approve"
    REJECT = "reject"
    REOPEN = "reopen"
    EXTEND = "extend"
    PAUSE = "pause"
    RESUME = "resume"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    RETRY = "retry"


class DenialReason(StrEnum):
    """Why a request is rejected: the list of the Data Rights Protocol 1.0."""

    SUSPECTED_FRAUD = "suspected_fraud"
    INSUF_VERIFICATION = "insuf_verification"
    NO_MATCH = "no_match"
    CLAIM_NOT_COVERED = "claim_not_covered"
    OUTSIDE_JURISDICTION = "outside_jurisdiction"
    TOO_MANY_REQUESTS = "too_many_requests"
    OTHER = "other"


class ErasureStatus(StrEnum):
    """Where one model's part of the promise stands."""

    PENDING = "pending"
    PAUSED = "paused"
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
