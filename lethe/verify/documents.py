"""Read JSON from whoever sent it: canonical to the byte, bounded, and of an exact shape."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import rfc8785

from lethe.verify.reasons import NotProven, Reason
from lethe.verify.spelling import parse_hash, parse_quoted_time, parse_time, parse_uuid

MOST_BYTES = 256 * 1024 * 1024
MOST_LEVELS = 64
# Whole numbers beyond this are doubles in canonical JSON (RFC 8785), written without an exponent.
_EXACT = 2**53 - 1

Read = TypeVar("Read")


class Malformed(ValueError):
    """Something has another shape than its format says; the message names its place."""


def parse(content: bytes) -> Any:
    """Return what canonical JSON (RFC 8785) says.

    Raises:
        NotProven: it is not JSON, not canonical, too long or too deep.

    """
    if len(content) > MOST_BYTES:
        raise NotProven(Reason.UNREADABLE, f"more than {MOST_BYTES} bytes")
    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=_distinct,
            parse_constant=_refuse_constant,
            parse_int=_number,
        )
        _check_levels(value)
    except (ValueError, RecursionError):
        # Without the parser's words, which may quote what they met.
        raise NotProven(
            Reason.UNREADABLE, f"not JSON in UTF-8 with at most {MOST_LEVELS} levels"
        ) from None
    try:
        canonical = rfc8785.dumps(value)
    except ValueError:
        raise NotProven(Reason.UNREADABLE, "a text or number that JSON cannot carry") from None
    if canonical != content:
        raise NotProven(Reason.NOT_CANONICAL, "not in the canonical form of RFC 8785")
    return value


def members(value: object, where: str, *names: str) -> Mapping[str, Any]:
    """Return an object that has exactly these members."""
    found = mapping(value, where)
    if found.keys() != set(names):
        raise Malformed(f"{where}: not exactly the members {', '.join(names)}")
    return found


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """Return an object with whichever members."""
    if not isinstance(value, dict):
        raise Malformed(f"{where}: not an object")
    return value


def items(value: object, where: str) -> Sequence[Any]:
    """Return an array."""
    if not isinstance(value, list):
        raise Malformed(f"{where}: not an array")
    return value


def only(value: object, where: str) -> Any:
    """Return the one element of an array."""
    found = items(value, where)
    if len(found) != 1:
        raise Malformed(f"{where}: not exactly one element")
    return found[0]


def text(value: object, where: str) -> str:
    """Return a string that says something."""
    if not isinstance(value, str) or not value:
        raise Malformed(f"{where}: not a text")
    return value


def one_of(value: object, where: str, *choices: str) -> str:
    """Return one of these strings."""
    if not isinstance(value, str) or value not in choices:
        raise Malformed(f"{where}: not one of {', '.join(choices)}")
    return value


def whole(value: object, where: str, least: int = 0) -> int:
    """Return a whole number that is large enough; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Malformed(f"{where}: not a whole number from {least} on")
    return value


def moment(value: object, where: str) -> datetime:
    """Return a time in UTC."""
    return _spelt(value, where, parse_time, "not a time like 2026-11-21T10:00:00Z")


def quoted_moment(value: object, where: str) -> datetime:
    """Return the time of a log entry."""
    return _spelt(value, where, parse_quoted_time, "not a time with its zone")


def uuid(value: object, where: str) -> UUID:
    """Return a UUID."""
    return _spelt(value, where, parse_uuid, "not a UUID")


def hash_(value: object, where: str) -> bytes:
    """Return 32 bytes, written in hex."""
    return _spelt(value, where, parse_hash, "not 32 bytes in hex")


def digest(value: object, where: str) -> str:
    """Return the hex of a digest like ``sha256:…``."""
    found = text(value, where)
    if not found.startswith("sha256:"):
        raise Malformed(f"{where}: not a digest")
    return hash_(found.removeprefix("sha256:"), where).hex()


def optional(value: object, where: str, read: Callable[[object, str], Read]) -> Read | None:
    """Return what is read, or None for null."""
    return None if value is None else read(value, where)


def _spelt(value: object, where: str, read: Callable[[str], Read], otherwise: str) -> Read:
    try:
        return read(text(value, where))
    except ValueError:
        raise Malformed(f"{where}: {otherwise}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice in one object")
    return found


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and infinities are not JSON")


def _number(digits: str) -> int | float:
    # Before they become numbers: Python's conversion takes quadratic time.
    if len(digits) > 400:
        raise ValueError("a number beyond doubles")
    value = int(digits)
    return value if abs(value) <= _EXACT else float(digits)


def _check_levels(value: object) -> None:
    level = [value]
    for _ in range(MOST_LEVELS):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        if not below:
            return
        level = below
    raise ValueError("too deep")
