"""The bytes of an entry, which a leaf of the log hashes."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import rfc8785

# Where there are neither floats nor what nests, and names are ours, the two agree; this one is five
# times as fast, and each request brings an entry or two.
_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
# Beyond it RFC 8785 knows no whole numbers.
_LARGEST = 2**53 - 1


def payload(event: str, subject: UUID, facts: Mapping[str, Any], at: str) -> str:
    """Return an entry as canonical JSON (RFC 8785)."""
    told: dict[str, Any] = {
        "at": at,
        "event": event,
        "facts": dict(facts),
        "subject": str(subject),
    }
    if all(map(_is_plain, facts.values())):
        return _PLAIN.encode(told)
    return rfc8785.dumps(told).decode()


def _is_plain(value: object) -> bool:
    match value:
        case None | str():
            return True
        case int():
            return -_LARGEST <= value <= _LARGEST
        case list():
            return not value
    return False
