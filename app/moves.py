"""The allowed moves between statuses, as data; ``app.lifecycle`` makes them."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from app.statuses import (
    ErasureStatus,
    JobStatus,
    LedgerStatus,
    ModelStatus,
    ReferenceStatus,
    RequestStatus,
    VersionStatus,
)
from app.tables import (
    DeletionRequest,
    Erasure,
    GradientLedger,
    ModelVersion,
    ReferenceSet,
    RegisteredModel,
    UnlearningJob,
)

SUBJECTS: Mapping[type[Any], str] = {
    RegisteredModel: "model",
    ModelVersion: "version",
    DeletionRequest: "deletion_request",
    Erasure: "erasure",
    UnlearningJob: "job",
    ReferenceSet: "references",
    GradientLedger: "ledger",
}

INITIAL: Mapping[type[Any], str] = {
    RegisteredModel: ModelStatus.CHECKING,
    ModelVersion: VersionStatus.CURRENT,
    DeletionRequest: RequestStatus.PENDING,
    Erasure: ErasureStatus.PENDING,
    UnlearningJob: JobStatus.QUEUED,
    ReferenceSet: ReferenceStatus.BUILDING,
    GradientLedger: LedgerStatus.COMPUTING,
}

MOVES: Mapping[type[Any], Mapping[str, Collection[str]]] = {
    RegisteredModel: {
        ModelStatus.CHECKING: {ModelStatus.READY, ModelStatus.REJECTED},
        ModelStatus.READY: set(),
        ModelStatus.REJECTED: set(),
    },
    ModelVersion: {
        VersionStatus.CURRENT: {VersionStatus.WITHDRAWN},
        VersionStatus.WITHDRAWN: {VersionStatus.PURGED},
        VersionStatus.PURGED: set(),
    },
    DeletionRequest: {
        RequestStatus.PENDING: {
            RequestStatus.HELD,
            RequestStatus.IN_PROGRESS,
            RequestStatus.COMPLETED,
            RequestStatus.NOTHING_FOUND,
            RequestStatus.NEEDS_ATTENTION,
            RequestStatus.REJECTED,
            RequestStatus.CANCELLED,
        },
        # Some of it may be done or under way: only what a later model adds waits for a review.
        RequestStatus.HELD: {
            RequestStatus.PENDING,
            RequestStatus.IN_PROGRESS,
            RequestStatus.COMPLETED,
            RequestStatus.NOTHING_FOUND,
            RequestStatus.NEEDS_ATTENTION,
            RequestStatus.REJECTED,
            RequestStatus.CANCELLED,
        },
        RequestStatus.IN_PROGRESS: {
            RequestStatus.PENDING,
            RequestStatus.HELD,
            RequestStatus.COMPLETED,
            RequestStatus.NEEDS_ATTENTION,
            RequestStatus.REJECTED,
            RequestStatus.CANCELLED,
        },
        RequestStatus.NEEDS_ATTENTION: {
            RequestStatus.PENDING,
            RequestStatus.HELD,
            RequestStatus.IN_PROGRESS,
            RequestStatus.COMPLETED,
            RequestStatus.REJECTED,
            RequestStatus.CANCELLED,
        },
        # A model that was still being checked when the request came may turn out to hold samples.
        RequestStatus.NOTHING_FOUND: {RequestStatus.PENDING, RequestStatus.HELD},
        RequestStatus.COMPLETED: {RequestStatus.IN_PROGRESS, RequestStatus.HELD},
        # Reopened.
        RequestStatus.REJECTED: {RequestStatus.PENDING},
        RequestStatus.CANCELLED: {RequestStatus.PENDING},
    },
    Erasure: {
        ErasureStatus.PENDING: {
            ErasureStatus.PAUSED,
            ErasureStatus.SCHEDULED,
            ErasureStatus.COMPLETED,  # an earlier job forgot all its samples
            ErasureStatus.REJECTED,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.PAUSED: {
            ErasureStatus.PENDING,
            ErasureStatus.REJECTED,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.SCHEDULED: {
            ErasureStatus.PENDING,
            ErasureStatus.PAUSED,
            ErasureStatus.COMPLETED,
            ErasureStatus.NEEDS_ATTENTION,
            ErasureStatus.REJECTED,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.NEEDS_ATTENTION: {
            ErasureStatus.PENDING,
            ErasureStatus.REJECTED,
            ErasureStatus.CANCELLED,
        },
        ErasureStatus.COMPLETED: set(),
        # Reopened.
        ErasureStatus.REJECTED: {ErasureStatus.PENDING},
        ErasureStatus.CANCELLED: {ErasureStatus.PENDING},
    },
    UnlearningJob: {
        JobStatus.QUEUED: {JobStatus.RUNNING, JobStatus.CANCELLED},
        JobStatus.RUNNING: {
            JobStatus.QUEUED,  # its lease ran out, or it was given back
            JobStatus.CANCELLED,
            JobStatus.PUBLISHED,
            JobStatus.REFUSED,
            JobStatus.FAILED,
        },
        JobStatus.PUBLISHED: set(),
        JobStatus.REFUSED: set(),
        JobStatus.FAILED: set(),
        JobStatus.CANCELLED: set(),
    },
    ReferenceSet: {
        ReferenceStatus.BUILDING: {
            ReferenceStatus.READY,
            ReferenceStatus.FAILED,
            ReferenceStatus.DISCARDED,
        },
        ReferenceStatus.READY: {ReferenceStatus.DISCARDED},
        ReferenceStatus.FAILED: {ReferenceStatus.DISCARDED},
        ReferenceStatus.DISCARDED: set(),
    },
    GradientLedger: {
        LedgerStatus.COMPUTING: {LedgerStatus.READY, LedgerStatus.FAILED, LedgerStatus.VOID},
        LedgerStatus.READY: {LedgerStatus.VOID},
        LedgerStatus.FAILED: {LedgerStatus.VOID},
        LedgerStatus.VOID: set(),
    },
}


@cache
def sources(table: type[Any], to: str) -> tuple[str, ...]:
    """Return the statuses from which a row may move to this one."""
    return tuple(sorted(source for source, targets in MOVES[table].items() if to in targets))
