"""Check what a Lethe service claims without trusting it.

The Merkle proofs need Python alone; signatures need the package ``cryptography``. Nothing of the
service is imported.
"""

from lethe.verify.merkle import (
    EMPTY_ROOT,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

__all__ = [
    "EMPTY_ROOT",
    "leaf_hash",
    "node_hash",
    "root_of",
    "verify_consistency",
    "verify_inclusion",
]
