"""Sign the tree head, and never two that contradict each other.

Before each signature the tree is held against the last head in the database and, where there is a
witness file, against the last one in that: a database that was restored or rewritten signs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from app import keys
from app.audit import ledger, published, service, signed_heads, witness_file
from app.audit.signed_heads import Signed
from app.db import lock, transaction
from app.errors import NotSigning, RolledBack
from app.keys import KeyRefused, SigningKey
from app.settings import settings
from app.tables import SignedHead
from lethe.verify.note import Checkpoint, sign_note
from lethe.verify.reasons import NotProven

log = structlog.get_logger()

# A log that rests is signed anew after this, so that a head that is withheld can be noticed.
FRESHNESS = timedelta(hours=1)

State = Literal["ok", "rolled back", "not signing"]


def current() -> tuple[Checkpoint, str]:
    """Return a signed head over every entry committed so far, and its note.

    In transactions of its own: what it returns is stored, and in the witness file.

    Raises:
        NotSigning: the key is retired, or the log contradicts what it signed before.

    """
    _place()
    with transaction() as session:
        signed = covering(session)
    witness_file.write_down()
    return signed.checkpoint, signed.note


def refresh() -> None:
    """Sign the head if the log grew, or if the newest signature is an hour old.

    Raises:
        NotSigning: the key is retired, or the log contradicts what it signed before.

    """
    _place()
    with transaction() as session:
        signed = covering(session)
        if published.moment(session) - signed.checkpoint.signed_at >= FRESHNESS:
            sign(session)
    witness_file.write_down()


def covering(session: Session) -> Signed:
    """Return a signed head over every committed entry; it counts once the transaction commits.

    Raises:
        NotSigning: the key is retired, or the log contradicts what it signed before.

    """
    key = _key()
    signed = signed_heads.latest(session)
    if (
        signed is None
        or ledger.is_growing(session)
        or ledger.head(session).size != signed.checkpoint.size
        or not published.is_published(session, key)
    ):
        return sign(session)
    with _refusing():
        published.check(session, key)
    refuse_contradictions(session)
    return signed


def sign(session: Session) -> Signed:
    """Place what is committed, sign the newest head and store it; one caller at a time.

    Raises:
        NotSigning: the key is retired, or the log contradicts what it signed before.

    """
    lock(session, "signed-heads")
    key = _key()
    with _refusing():
        published.introduce(session, key)
    while ledger.sequence(session):
        pass
    refuse_contradictions(session)
    before = signed_heads.latest(session)
    head, at = ledger.head(session), published.moment(session)
    checkpoint = Checkpoint(
        origin=signed_heads.origin(session),
        size=head.size,
        root_hash=head.root_hash,
        # A clock that was set back does not make the log's time run backwards.
        signed_at=at if before is None else max(at, before.checkpoint.signed_at),
    )
    note = sign_note(checkpoint, _ed25519(key))
    session.add(
        SignedHead(size=head.size, key_id=key.id, note=note, signed_at=checkpoint.signed_at)
    )
    session.flush()
    return Signed(checkpoint, note)


def refuse_contradictions(session: Session) -> None:
    """See that the log still has what it signed.

    Raises:
        RolledBack: it has not.
        NotSigning: the witness file cannot be read.

    """
    reason = _contradiction(session)
    if reason is not None:
        log.error("log.rolled_back", reason=reason)
        raise RolledBack("The log contradicts what it signed before; the operator must act.")


def state() -> State:
    """Tell whether a head could be signed now.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.

    """
    try:
        with transaction() as session:
            published.check(session, keys.log_key())
            return "ok" if _contradiction(session) is None else "rolled back"
    except (KeyRefused, NotSigning):
        return "not signing"


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except KeyRefused as error:
        log.error("log.key_refused", reason=str(error))  # its words quote nothing
        raise NotSigning("The log's key cannot be used; the operator must act.") from None


def _place() -> None:
    try:
        service.place_all()
    except RolledBack as error:
        log.error("log.rolled_back", reason=error.detail)
        raise


def _key() -> SigningKey:
    with _refusing():
        return keys.log_key()


def _contradiction(session: Session) -> str | None:
    # The file before the database: it never has what the database had not before.
    remembered = _remembered()
    try:
        signed = signed_heads.latest(session)
    except NotProven:
        return "a stored head is damaged"
    for note in (remembered, None if signed is None else signed.note):
        reason = None if note is None else signed_heads.contradiction(session, note)
        if reason is not None:
            return reason
    return None


def _remembered() -> str | None:
    path = settings().witness_file
    try:
        return None if path is None else witness_file.last_note(path)
    except (OSError, witness_file.Damaged) as error:
        log.error("witness_file.unreadable", error=type(error).__name__)
        raise NotSigning("The witness file cannot be read; the operator must act.") from None


def _ed25519(key: SigningKey) -> Ed25519PrivateKey:
    if not isinstance(key.private, Ed25519PrivateKey):
        raise TypeError("the log's key signs with Ed25519")
    return key.private
