"""Tree heads as signed notes: what C2SP calls signed-note and tlog-checkpoint."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lethe.verify.keys import VerifyingKey
from lethe.verify.merkle import EMPTY_ROOT
from lethe.verify.reasons import NotProven, Reason
from lethe.verify.signers import check_life, check_signature
from lethe.verify.spelling import format_time, parse_base64, parse_time

LARGEST_SIZE = 2**63 - 1
_LONGEST = 2_000
# Visible ASCII; the formats also reserve the plus sign.
_ORIGIN = re.compile(r"[!-*,-~]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME_PREFIX = "time "
_SIGNATURE_PREFIX = "\u2014 "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log of this name had this size and root when it was signed."""

    origin: str
    size: int
    root_hash: bytes
    signed_at: datetime


def sign_note(checkpoint: Checkpoint, private_key: Ed25519PrivateKey) -> str:
    """Return the signed note of a tree head.

    Raises:
        ValueError: its origin, size, root or time cannot stand in a note.

    """
    text = _text(checkpoint)
    try:
        _parse(text)
    except NotProven as error:
        raise ValueError(error.detail) from None
    hint = key_hash(checkpoint.origin, private_key.public_key())
    signature = base64.b64encode(hint + private_key.sign(text.encode())).decode()
    return f"{text}\n{_SIGNATURE_PREFIX}{checkpoint.origin} {signature}\n"


def open_note(text: str, keys: Sequence[VerifyingKey]) -> Checkpoint:
    """Return the tree head of a note that one of the keys signed while it was in use.

    Raises:
        NotProven: the note is malformed, or not signed so.

    """
    return open_signed(text, keys)[0]


def open_signed(text: str, keys: Sequence[VerifyingKey]) -> tuple[Checkpoint, VerifyingKey]:
    """Return the tree head of a note, and the key that signed it.

    Raises:
        NotProven: the note is malformed, or none of the keys signed it while it was in use.

    """
    checkpoint, hint, signature = _split(text)
    named = [
        key
        for key in keys
        if isinstance(key.public, Ed25519PublicKey)
        and key_hash(checkpoint.origin, key.public) == hint
    ]
    signed = text[: text.index("\n\n") + 1].encode()
    signer = check_signature(named, signature, signed, Reason.HEAD_SIGNATURE)
    check_life(named, signer, checkpoint.signed_at)
    return checkpoint, signer


def peek(text: str) -> Checkpoint:
    """Return what a note says, whoever signed it.

    Raises:
        NotProven: the note is malformed.

    """
    return _split(text)[0]


def key_hash(name: str, public: Ed25519PublicKey) -> bytes:
    """Return the four bytes that tell a note's keys apart (they are a hint, and prove nothing)."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public.public_bytes_raw()).digest()[:4]


def _text(checkpoint: Checkpoint) -> str:
    root = base64.b64encode(checkpoint.root_hash).decode()
    at = format_time(checkpoint.signed_at)
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n{_TIME_PREFIX}{at}\n"


def _split(text: str) -> tuple[Checkpoint, bytes, bytes]:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise _malformed("it is no text, or longer than a tree head can be")
    body, gap, rest = text.partition("\n\n")
    if not gap:
        raise _malformed("it has no signature")
    checkpoint = _parse(body + "\n")
    prefix = f"{_SIGNATURE_PREFIX}{checkpoint.origin} "
    if not rest.startswith(prefix) or not rest.endswith("\n"):
        raise _malformed("its signature is not the log's")
    try:
        value = parse_base64(rest[len(prefix) : -1])
    except ValueError:
        raise _malformed("its signature is not exactly one in base64") from None
    if len(value) != 4 + 64:
        raise _malformed("its signature has not the length of one")
    return checkpoint, value[:4], value[4:]


def _parse(body: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) != 5 or lines[4]:
        raise _malformed("it has not exactly four lines")
    origin, size, root, time = lines[:4]
    if not _ORIGIN.fullmatch(origin):
        raise _malformed("its first line is no origin")
    if not _SIZE.fullmatch(size) or int(size) > LARGEST_SIZE:
        raise _malformed("its second line is no size")
    try:
        root_hash = parse_base64(root)
    except ValueError:
        raise _malformed("its third line is no base64") from None
    if len(root_hash) != 32 or (size == "0" and root_hash != EMPTY_ROOT):
        raise _malformed("its third line is no root of that size")
    try:
        at = parse_time(time.removeprefix(_TIME_PREFIX))
    except ValueError:
        raise _malformed("its fourth line is no time") from None
    if not time.startswith(_TIME_PREFIX):
        raise _malformed("its fourth line is not marked as a time")
    return Checkpoint(origin, int(size), root_hash, at)


def _malformed(detail: str) -> NotProven:
    return NotProven(Reason.HEAD_MALFORMED, f"the tree head is no signed note: {detail}")
