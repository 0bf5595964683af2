"""What clients ask for, and what of it may be stored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from app.deletions.clocks import Regulation
from app.privacy import digest_for, digest_sample_id, key_id


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """What a client asks for. The only place outside a Recipe where sample IDs are plain."""

    sample_ids: Sequence[str]
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Intake:
    """A submission as it may be stored: every sample ID replaced by its keyed digest."""

    sample_digests: Sequence[bytes]
    body_digest: bytes
    id_key_id: str
    model: str | None
    regulation: Regulation
    reference: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """An intake, by whom, and the digest of the Idempotency-Key that came with it."""

    client: str
    intake: Intake
    key_digest: bytes | None = None


def take_in(submission: Submission, id_key: bytes) -> Intake:
    """Replace the sample IDs by keyed digests; nothing after this sees an ID."""
    digests = sorted({digest_sample_id(id_key, id_) for id_ in submission.sample_ids})
    body = json.dumps(
        [
            [digest.hex() for digest in digests],
            submission.model,
            submission.regulation,
            submission.reference,
            submission.reason,
        ]
    )
    return Intake(
        sample_digests=digests,
        body_digest=digest_for(id_key, "body", body.encode()),
        id_key_id=key_id(id_key),
        model=submission.model,
        regulation=submission.regulation,
        reference=submission.reference,
        reason=submission.reason,
    )


def key_digest(key: str, id_key: bytes) -> bytes:
    """Return what is stored of an Idempotency-Key, which may hold personal data."""
    return digest_for(id_key, "idempotency-key", key.encode())
