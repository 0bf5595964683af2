"""Check what a Lethe service claims without trusting it.

Needs the packages ``cryptography`` and ``rfc8785``, and nothing of the service.
"""

from lethe.verify.keys import NotAKey, VerifyingKey, load_keys
from lethe.verify.log import ReplayedLog, verify_log
from lethe.verify.merkle import (
    EMPTY_ROOT,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from lethe.verify.note import Checkpoint, open_note
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.receipt import Verified, verify_receipt
from lethe.verify.report import Report, describe_log, describe_receipt
from lethe.verify.witness import advance

__all__ = [
    "EMPTY_ROOT",
    "Checkpoint",
    "NotAKey",
    "NotProven",
    "Reason",
    "ReplayedLog",
    "Report",
    "Verified",
    "VerifyingKey",
    "advance",
    "describe_log",
    "describe_receipt",
    "leaf_hash",
    "load_keys",
    "node_hash",
    "open_note",
    "root_of",
    "verify_consistency",
    "verify_inclusion",
    "verify_log",
    "verify_receipt",
]
