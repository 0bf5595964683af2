"""Sign weights with OpenSSF model signing, and check signatures before weights are loaded.

A signature lies beside the file that it is for, as a Sigstore bundle. It names the file's SHA-256
and not the file, so that it holds for a download under any name.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from model_signing import signing, verifying

from app.artifacts import ArtifactStore
from app.audit import published
from app.db import transaction
from app.keys import Purpose, SigningKey, to_pem, weights_key
from app.tables import ModelVersion
from lethe.verify import keys as public_keys
from lethe.verify.keys import VerifyingKey
from workers.artifacts import Corrupted

log = structlog.get_logger()

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# Ours have 1.3 kB; a larger file is none, and is not read.
LARGEST_BUNDLE_BYTES = 64 * 1024
# Weights are signed before the row is made that says when; the database may be away meanwhile.
BETWEEN = timedelta(hours=1)
WHAT_TO_DO = (
    "hold the weights against a backup; if they are those that you expect, sign them "
    "(lethe weights sign), and retry what needs attention"
)


class SignatureRefused(Corrupted):
    """The signature of a file is not one that this service made for these bytes."""


class NotSigned(SignatureRefused):
    """A file has no signature."""


def introduce_key() -> SigningKey:
    """Return this worker's key, which is published from now on.

    Raises:
        KeyRefused: there is none, or it was retired.

    """
    key = weights_key()
    with transaction() as session:
        published.introduce(session, key)
    return key


def sign(store: ArtifactStore, digest: str) -> None:
    """Sign a stored file; the signature is durable when this returns.

    Raises:
        KeyRefused: there is no key, or it was retired.
        Corrupted: the file is not there, or holds other bytes than its digest names.
        StorageFailed: the store is full or broken.

    """
    path = store.find(digest)
    if path is None:
        raise Corrupted(f"the artifact store lacks {digest}; nothing was signed")
    bundle = _sign(path, introduce_key())
    if _signed_digest(bundle) != digest:
        raise Corrupted(f"the file stored as {digest} holds other bytes; nothing was signed")
    with store.incoming() as file:
        file.write(bundle)
        file.keep_as_signature_of(digest)
    log.info("weights.signed", digest=digest)


def verify_version(store: ArtifactStore, version_id: UUID, digest: str) -> None:
    """Check the signature of a version's weights, which somebody is about to load.

    Raises:
        SignatureRefused: see ``verify``.
        OSError: the weights cannot be read.

    """
    with transaction() as session:
        made_at = session.get_one(ModelVersion, version_id).created_at
        keys = published.published(session, Purpose.WEIGHTS)
    verify(store, digest, keys, made_at)


def verify(
    store: ArtifactStore, digest: str, keys: Sequence[VerifyingKey], made_at: datetime
) -> None:
    """Check that one of the keys signed the bytes that the digest names, and the file has them.

    A key that was retired is believed about what was made before. Whoever loads the file still
    has to hold its bytes against the digest.

    Args:
        store: where file and signature lie.
        digest: of the file.
        keys: those that have signed here.
        made_at: when the weights were published.

    Raises:
        NotSigned: there is no signature.
        SignatureRefused: the key is unknown or was retired before, or the bytes are others.
        OSError: the file cannot be read.

    """
    path, bundle = store.find(digest), _read_bundle(store, digest)
    if path is None:
        raise SignatureRefused(f"the artifact store lacks {digest}")
    key = _key_of(bundle, keys, digest)
    if key.retired_at is not None and made_at > key.retired_at + BETWEEN:
        raise _refused(digest, f"is by the key {key.id}, which had been retired before")
    if not _holds(bundle, path, key) or _signed_digest(bundle) != digest:
        raise _refused(digest, "does not hold: the weights or the signature were altered")


def _refused(digest: str, why: str) -> SignatureRefused:
    return SignatureRefused(f"the signature of {digest} {why}; {WHAT_TO_DO}")


def _read_bundle(store: ArtifactStore, digest: str) -> bytes:
    path = store.find_signature(digest)
    if path is None:
        raise NotSigned(f"{digest} has no signature; {WHAT_TO_DO}")
    with path.open("rb") as file:
        bundle = file.read(LARGEST_BUNDLE_BYTES + 1)
    if len(bundle) > LARGEST_BUNDLE_BYTES:
        raise _refused(digest, "is none: it is too large")
    return bundle


def _key_of(bundle: bytes, keys: Sequence[VerifyingKey], digest: str) -> VerifyingKey:
    try:
        named = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _refused(digest, "is none") from None
    for key in keys:
        if named == hashlib.sha256(public_keys.to_pem(key.public).encode()).hexdigest():
            return key
    raise _refused(digest, "is by a key that was never published here")


def _sign(path: Path, key: SigningKey) -> bytes:
    with _lent(to_pem(key.private).encode()) as private, _lent(b"") as bundle:
        # Resolved, because the library refuses links, and an operator may move a file.
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=private).sign(path.resolve(), bundle)
        return bundle.read_bytes()


def _holds(bundle: bytes, path: Path, key: VerifyingKey) -> bool:
    config = verifying.Config()  # type: ignore[no-untyped-call]
    with _lent(public_keys.to_pem(key.public).encode()) as public, _lent(bundle) as signature:
        try:
            config.use_elliptic_key_verifier(public_key=public).verify(path.resolve(), signature)
        except (OSError, MemoryError):
            raise
        except Exception:  # noqa: BLE001  # whatever a bundle that somebody made up leads to
            return False
    return True


def _signed_digest(bundle: bytes) -> str | None:
    """Return the digest of the one file that a bundle is about, as its payload has it."""
    try:
        payload = json.loads(bundle)["dsseEnvelope"]["payload"]
        statement: Any = json.loads(base64.b64decode(payload, validate=True))
        resources = statement["predicate"]["resources"]
        named = {"algorithm": "sha256", "digest": resources[0]["digest"], "name": "."}
        is_of_one_file = statement["predicateType"] == PREDICATE_TYPE and resources == [named]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return f"sha256:{named['digest']}" if is_of_one_file else None


@contextmanager
def _lent(content: bytes) -> Iterator[Path]:
    """Lend bytes as a file to a library that takes paths alone; a key is to reach no disk."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("lethe"), "w+b", buffering=0) as file:
            file.write(content)
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory() as folder:  # nobody else may enter it
        path = Path(folder, "lent")
        path.write_bytes(content)
        yield path
