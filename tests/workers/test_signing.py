"""A signature holds for the very bytes that a known key signed, and for nothing else."""

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing import signing as official

from app.artifacts import ArtifactStore
from app.keys import weights_key
from app.settings import settings
from lethe.verify.keys import VerifyingKey
from tests.conftest import WEIGHTS_KEY
from workers import signing
from workers.artifacts import Corrupted
from workers.signing import NotSigned, SignatureRefused

FORGOTTEN = tuple(f"person-{index}" for index in range(40))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
CONTENT = b"weights" * 1000


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def put(digest: str, content: bytes) -> None:
    """Let a signature lie beside a file, in place of its own."""
    path = store().signature_path_of(digest)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def verify(digest: str, *known: VerifyingKey, made_at: datetime = LONG_AGO) -> None:
    signing.verify(store(), digest, known or [weights_key().public], made_at)


def official_bundle(private: EllipticCurvePrivateKey, path: Path, folder: Path) -> bytes:
    """Sign with the library itself, its key in a file."""
    folder.mkdir(exist_ok=True)
    (folder / "key").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    config = official.Config().use_elliptic_key_signer(private_key=folder / "key")
    config.sign(path, folder / "bundle")
    return (folder / "bundle").read_bytes()


@pytest.fixture
def signed(environment: dict[str, str]) -> str:
    """The digest of a stored and signed file."""
    digest = store().put([CONTENT]).digest
    signing.sign(store(), digest)
    verify(digest)
    return digest


def resigned(bundle: bytes, change: Callable[[Any], None]) -> bytes:
    """Change what a bundle states and sign it with the right key, as whoever stole it may."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    parsed = json.loads(bundle)
    envelope = parsed["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    kind = envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    private = weights_key().private
    assert isinstance(private, EllipticCurvePrivateKey)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(
        private.sign(message, ECDSA(SHA256()))
    ).decode()
    return json.dumps(parsed).encode()


def test_a_signature_that_does_not_hold_is_refused_with_the_reason(
    signed: str, tmp_path: Path
) -> None:
    bundle = store().signature_path_of(signed).read_bytes()
    path = store().path_of(signed)
    other = store().put([b"other weights"]).digest
    signing.sign(store(), other)
    private = weights_key().private
    assert isinstance(private, EllipticCurvePrivateKey)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(CONTENT)
    elsewhere = generate_private_key(SECP256R1())
    parsed = json.loads(bundle)
    parsed["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(bytes(70)).decode()
    unnamed = json.loads(bundle)
    unnamed["verificationMaterial"]["publicKey"]["hint"] = None
    # What is stated of other files beside this one, or in another form, says too little.
    older = {
        "predicateType": "https://model_signing/Digests/v0.1",
        "subject": [{"name": ".", "digest": {"sha256": signed.removeprefix("sha256:")}}],
    }
    stranger = {"name": "a", "algorithm": "sha256", "digest": "0" * 64}
    cases = {
        "of another file": (store().signature_path_of(other).read_bytes(), "were altered"),
        "by a stranger": (official_bundle(elsewhere, path, tmp_path / "a"), "never published"),
        "by nobody": (json.dumps(unnamed).encode(), "never published"),
        "of a folder": (official_bundle(private, folder, tmp_path / "b"), "were altered"),
        "of zeros": (json.dumps(parsed).encode(), "were altered"),
        "of an older format": (resigned(bundle, lambda s: s.update(older)), "were altered"),
        "of two files": (
            resigned(bundle, lambda s: s["predicate"]["resources"].append(stranger)),
            "were altered",
        ),
        "cut off": (bundle[:-1], "is none"),
        "nothing": (b"", "is none"),
        "a list": (b"[]", "is none"),
        "deep": (b"[" * 60_000, "is none"),
        "too large": (bundle + b" " * 70_000, "too large"),
    }
    assert json.loads(resigned(bundle, lambda _: None))
    for name, (content, words) in cases.items():
        put(signed, content)
        with pytest.raises(SignatureRefused) as refused:
            verify(signed)
        assert words in str(refused.value), name
        assert "lethe weights sign" in str(refused.value), name
    put(signed, resigned(bundle, lambda _: None))
    verify(signed)
    store().signature_path_of(signed).unlink()
    with pytest.raises(NotSigned, match="has no signature"):
        verify(signed)


def test_other_signed_weights_in_the_place_of_these_are_refused(signed: str) -> None:
    other = store().put([b"other weights"]).digest
    signing.sign(store(), other)
    path = store().path_of(signed)
    path.unlink()
    path.write_bytes(b"other weights")
    put(signed, store().signature_path_of(other).read_bytes())
    with pytest.raises(SignatureRefused, match="were altered"):
        verify(signed)


def test_bytes_that_were_altered_after_the_signature_are_refused(signed: str) -> None:
    path = store().path_of(signed)
    path.chmod(0o640)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(SignatureRefused, match="were altered"):
        verify(signed)
    path.unlink()
    with pytest.raises(SignatureRefused, match="lacks"):
        verify(signed)


def test_a_retired_key_is_believed_about_what_was_made_before(signed: str) -> None:
    retired = VerifyingKey(weights_key().public.public, "weights", LONG_AGO, LONG_AGO)
    verify(signed, retired, made_at=LONG_AGO - timedelta(days=1))
    # Weights are signed a moment before their version is made.
    verify(signed, retired, made_at=LONG_AGO + timedelta(minutes=59))
    with pytest.raises(SignatureRefused, match="had been retired before"):
        verify(signed, retired, made_at=LONG_AGO + timedelta(minutes=61))


def test_nothing_is_signed_that_is_not_what_its_name_says(environment: dict[str, str]) -> None:
    digest = store().put([CONTENT]).digest
    path = store().path_of(digest)
    path.chmod(0o640)
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(Corrupted, match="nothing was signed"):
        signing.sign(store(), digest)
    path.unlink()
    with pytest.raises(Corrupted, match="nothing was signed"):
        signing.sign(store(), digest)
    assert store().find_signature(digest) is None


@pytest.mark.parametrize("memory", [True, False])
def test_the_private_key_is_left_on_no_disk(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    lent: list[tuple[str, int]] = []
    configure = official.Config.use_elliptic_key_signer

    def look(self: Any, *, private_key: Path) -> Any:
        status = Path(private_key).resolve().parent.stat() if not memory else None
        lent.append((str(private_key), 0 if status is None else status.st_mode & 0o777))
        return configure(self, private_key=private_key)

    monkeypatch.setattr(official.Config, "use_elliptic_key_signer", look)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create")
    digest = store().put([CONTENT]).digest
    signing.sign(store(), digest)
    verify(digest)
    ((path, mode),) = lent
    if memory:
        assert path.startswith("/proc/self/fd/")
    else:
        # A system that has no files in memory gets a folder that is closed to others.
        assert (Path(path).is_relative_to(tmp_path), mode) == (True, 0o700)
    secret = WEIGHTS_KEY.splitlines()[1].encode()
    files = [found for found in tmp_path.rglob("*") if found.is_file()]
    assert {found.name for found in files} == {digest[7:], digest[7:] + ".sig"}
    assert not any(secret in found.read_bytes() for found in files)


def test_signing_again_replaces_the_signature_and_leaves_nothing_else(signed: str) -> None:
    before = {path.name for path in store().folder.rglob("*") if path.is_file()}
    put(signed, b"{}")
    signing.sign(store(), signed)
    verify(signed)
    after = {path.name for path in store().folder.rglob("*") if path.is_file()}
    assert after == before == {signed[7:], signed[7:] + ".sig"}
