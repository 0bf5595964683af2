"""What can go wrong, as one tree; each leaf has an HTTP status and a stable problem type.

LetheError
├── Invalid                       422  the request is understood and cannot be accepted
│   ├── InvalidCursor             422
│   ├── UnknownModel              422
│   ├── NotACheckpoint            422
│   ├── UnknownCheckpoint         422
│   ├── AddressRefused            422
│   ├── NoCustomClock             422
│   └── IdempotencyKeyReused      422
├── Malformed                     400  the body cannot be read
├── Unauthorized                  401
├── Forbidden                     403  the key lacks a scope
├── NotFound                      404
├── Gone                          410
├── Conflict                      409
│   ├── NameTaken                 409
│   ├── NoCurrentVersion          409
│   └── TooLate                   409
├── ContentTooLarge               413
├── RangeNotSatisfiable           416
├── StorageFailed                 507  the artifact store did not take the bytes
├── TooManyRequests               429
└── Unavailable                   503  a dependency is down; nothing was stored
    ├── TooManyStreams            503
    └── NotSigning                503  tree heads and receipts are not signed
        └── RolledBack            503  the log contradicts a tree head that it signed

IllegalMove and LeaseLost are not answers to a client: they mean that somebody else was faster.
"""

from collections.abc import Mapping
from typing import ClassVar

PROBLEM_TYPE_PREFIX = "urn:lethe:problem:"


class LetheError(Exception):
    """An error that a client is told about in RFC 9457 form; the message says what to do."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    headers: Mapping[str, str] | None = None

    def __init__(self, detail: str) -> None:
        """Keep the detail, which must never quote a sample ID."""
        super().__init__(detail)
        self.detail = detail


class Invalid(LetheError):
    """The request is well formed and cannot be accepted."""

    status, slug, title = 422, "invalid-request", "The request is not valid"


class InvalidCursor(Invalid):
    """A page cursor that this service did not make."""

    slug, title = "invalid-cursor", "The cursor is not valid"


class UnknownModel(Invalid):
    """A deletion request names a model that is not registered."""

    slug, title = "unknown-model", "No such model is registered"


class NotACheckpoint(Invalid):
    """The upload is not a safetensors file."""

    slug, title = "not-a-checkpoint", "The file is not a safetensors checkpoint"


class UnknownCheckpoint(Invalid):
    """A registration names a checkpoint that the artifact store does not hold."""

    slug, title = "unknown-checkpoint", "No such checkpoint is stored"


class AddressRefused(Invalid):
    """Messages are not sent to such an address; the detail never quotes it."""

    slug, title = "address-refused", "No message is sent to this address"


class NoCustomClock(Invalid):
    """A request comes under a policy of one's own, and none is configured."""

    slug, title = "no-custom-clock", "No clock of its own is configured"


class IdempotencyKeyReused(Invalid):
    """The same Idempotency-Key came with another body."""

    slug, title = "idempotency-key-reused", "The Idempotency-Key was used for another request"


class Malformed(LetheError):
    """The body cannot be read at all."""

    status, slug, title = 400, "malformed", "The request cannot be read"


class Unauthorized(LetheError):
    """No bearer key, or a wrong one; the two are answered alike."""

    status, slug, title = 401, "unauthorized", "A valid bearer key is needed"
    headers: Mapping[str, str] | None = {"WWW-Authenticate": "Bearer"}


class Forbidden(LetheError):
    """The caller is known and lacks a scope; the detail names it."""

    status, slug, title = 403, "forbidden", "The key does not allow this"


class NotFound(LetheError):
    """No such resource."""

    status, slug, title = 404, "not-found", "No such resource"


class Gone(LetheError):
    """It was here, and has been withdrawn for good."""

    status, slug, title = 410, "gone", "The resource was withdrawn"


class Conflict(LetheError):
    """The resource is not in a state that allows this."""

    status, slug, title = 409, "conflict", "The resource's state does not allow this"


class NameTaken(Conflict):
    """A model of this name is registered already."""

    slug, title = "name-taken", "A model of this name is registered"


class NoCurrentVersion(Conflict):
    """The model has no published version yet."""

    slug, title = "no-current-version", "The model has no current version"


class TooLate(Conflict):
    """A withdrawal that came when nothing was left to withdraw."""

    slug, title = "too-late", "Nothing can be withdrawn any more"


class ContentTooLarge(LetheError):
    """The body exceeds the limit."""

    status, slug, title = 413, "content-too-large", "The body is too large"


class RangeNotSatisfiable(LetheError):
    """The requested range lies outside the file."""

    status, slug, title = 416, "range-not-satisfiable", "The range lies outside the file"


class TooManyRequests(LetheError):
    """The caller is faster than its rate allows."""

    status, slug, title = 429, "too-many-requests", "Too many requests"

    def __init__(self, detail: str, wait: int) -> None:
        """Keep the seconds after which to come again."""
        super().__init__(detail)
        self.headers = {"Retry-After": str(wait)}


class StorageFailed(LetheError):
    """The artifact store is full, read-only or broken."""

    status, slug, title = 507, "storage-failed", "The artifact store did not take the file"


class Unavailable(LetheError):
    """The database cannot be reached."""

    status, slug, title = 503, "unavailable", "The service cannot store anything at the moment"
    headers: Mapping[str, str] | None = {"Retry-After": "5"}


class TooManyStreams(Unavailable):
    """The process keeps as many streams open as it may."""

    slug, title = "too-many-streams", "No further stream can be opened"


class NotSigning(Unavailable):
    """The log's key cannot be used, or nothing may be signed with it."""

    slug, title = "not-signing", "The service signs nothing at the moment"


class RolledBack(NotSigning):
    """The log lacks, or has otherwise, what it signed a tree head over."""

    slug, title = "log-rolled-back", "The log contradicts what it signed before"


class IllegalMove(Exception):
    """A status was to change in a way that the lifecycle does not allow."""


class LeaseLost(Exception):
    """The job's lease belongs to another claim by now; whatever was computed is void."""
