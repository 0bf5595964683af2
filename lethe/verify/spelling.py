"""How the formats write bytes, times and ids: each value in one way, and no other is read."""

import base64
import re
from datetime import UTC, datetime
from uuid import UUID

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


def format_time(moment: datetime) -> str:
    """Return an aware time in UTC, with Z.

    Raises:
        ValueError: it has no time zone.

    """
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse_time(text: str) -> datetime:
    """Return the time in UTC that a text like 2026-11-21T10:00:00Z stands for.

    Raises:
        ValueError: it is none, or written in another way.

    """
    if not _TIME.fullmatch(text):
        raise ValueError("not a time in UTC")
    return datetime.fromisoformat(text)


def parse_quoted_time(text: str) -> datetime:
    """Return the aware time of a log entry, in whichever zone it was written.

    Raises:
        ValueError: it is none, or has no time zone.

    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def parse_base64(text: str) -> bytes:
    """Return the bytes of padded base64 (RFC 4648, section 4).

    Raises:
        ValueError: it is not base64, or another spelling of the same bytes.

    """
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError("not canonical base64")
    return value


def parse_hash(text: str) -> bytes:
    """Return the 32 bytes of lower-case hex.

    Raises:
        ValueError: it is not that.

    """
    value = bytes.fromhex(text)
    if len(value) != 32 or value.hex() != text:
        raise ValueError("not 32 bytes in lower-case hex")
    return value


def parse_uuid(text: str) -> UUID:
    """Return the UUID of its usual form, in lower case.

    Raises:
        ValueError: it is not that.

    """
    value = UUID(text)
    if str(value) != text:
        raise ValueError("not a UUID in its usual form")
    return value
