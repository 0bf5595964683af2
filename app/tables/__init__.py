"""Every table. Statuses are written by ``app.lifecycle`` alone, and audit rows never change."""

from app.tables.access import AccessKey
from app.tables.audit import (
    APPEND_ONLY_TABLES,
    AuditEntry,
    AuditHead,
    AuditLeaf,
    AuditNode,
    AuditPending,
)
from app.tables.base import Base
from app.tables.callbacks import Callback, DeliveryAttempt, Signer
from app.tables.decisions import Decision
from app.tables.deletions import DeletionRequest, Erasure, RequestedSample
from app.tables.derived import (
    GradientLedger,
    HoldoutReferenceLoss,
    ReferenceLoss,
    ReferenceSet,
)
from app.tables.evidence import (
    Delivery,
    JobRecord,
    LogOrigin,
    Notice,
    PublishedKey,
    Recipient,
    SignedHead,
    Transition,
    WitnessFeed,
)
from app.tables.jobs import Cohort, Rung, UnlearningJob
from app.tables.opendsr import SubjectRequest, SubjectRequestStatus
from app.tables.registry import ManifestEntry, ModelVersion, RegisteredModel

__all__ = [
    "APPEND_ONLY_TABLES",
    "AccessKey",
    "AuditEntry",
    "AuditHead",
    "AuditLeaf",
    "AuditNode",
    "AuditPending",
    "Base",
    "Callback",
    "Cohort",
    "Decision",
    "DeletionRequest",
    "Delivery",
    "DeliveryAttempt",
    "Erasure",
    "GradientLedger",
    "HoldoutReferenceLoss",
    "JobRecord",
    "LogOrigin",
    "ManifestEntry",
    "ModelVersion",
    "Notice",
    "PublishedKey",
    "Recipient",
    "ReferenceLoss",
    "ReferenceSet",
    "RegisteredModel",
    "RequestedSample",
    "Rung",
    "SignedHead",
    "Signer",
    "SubjectRequest",
    "SubjectRequestStatus",
    "Transition",
    "UnlearningJob",
    "WitnessFeed",
]
