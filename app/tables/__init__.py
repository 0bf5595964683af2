"""Every table. Statuses are written by ``app.lifecycle`` alone, and audit rows never change."""

from app.tables.audit import (
    APPEND_ONLY_TABLES,
    AuditEntry,
    AuditHead,
    AuditLeaf,
    AuditNode,
    AuditPending,
)
from app.tables.base import Base
from app.tables.deletions import DeletionRequest, Erasure, RequestedSample
from app.tables.derived import (
    GradientLedger,
    HoldoutReferenceLoss,
    ReferenceLoss,
    ReferenceSet,
)
from app.tables.jobs import Cohort, Rung, UnlearningJob
from app.tables.registry import ManifestEntry, ModelVersion, RegisteredModel

__all__ = [
    "APPEND_ONLY_TABLES",
    "AuditEntry",
    "AuditHead",
    "AuditLeaf",
    "AuditNode",
    "AuditPending",
    "Base",
    "Cohort",
    "DeletionRequest",
    "Erasure",
    "GradientLedger",
    "HoldoutReferenceLoss",
    "ManifestEntry",
    "ModelVersion",
    "ReferenceLoss",
    "ReferenceSet",
    "RegisteredModel",
    "RequestedSample",
    "Rung",
    "UnlearningJob",
]
