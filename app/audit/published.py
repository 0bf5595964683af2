"""The public keys of what is signed here, from their first use to their retirement and beyond.

A key that was retired, or that was generated for the embedded mode, is known for good: no setting
brings it back into use.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.orm import Session

from app.audit import ledger
from app.db import lock
from app.errors import NotFound
from app.keys import KeyRefused, Purpose, SigningKey
from app.settings import settings
from app.tables import PublishedKey
from lethe.verify.keys import VerifyingKey, load_keys, to_jwk, to_pem

# A new key retires the former ones after this: an upgrade restarts one process after the other.
OVERLAP = timedelta(hours=1)
_LOCK = "published-keys"


def introduce(session: Session, key: SigningKey) -> None:
    """Publish a key that is about to sign, unless it is already; see that it may sign.

    The key stays in use until the caller's transaction ends: who retires it waits for that. A new
    one retires the former ones of its purpose, an hour later.

    Raises:
        KeyRefused: it is retired, or was generated for the embedded mode.

    """
    if _known(session, key) is None:
        lock(session, _LOCK)
        if _known(session, key) is None:
            _publish(session, key)
            return
    else:
        lock(session, _LOCK, shared=True)
    check(session, key)


def check(session: Session, key: SigningKey) -> None:
    """See that a key may sign, as far as the database knows.

    Raises:
        KeyRefused: it is retired, or was generated for the embedded mode.

    """
    known = _known(session, key)
    if known is None:
        return
    name = f"LETHE_{key.purpose.upper()}_KEY"
    if known.generated and settings().mode != "embedded":
        raise KeyRefused(f"{name} was generated for the embedded mode; make one of your own")
    if known.retired_at is not None and known.retired_at <= moment(session):
        raise KeyRefused(f"{name} was retired; make a new one: lethe keys new {key.purpose}")


def retire(session: Session, key_id: str) -> datetime:
    """Retire a key at once, as after a theft; return since when it is retired.

    Raises:
        NotFound: no such key was published.

    """
    lock(session, _LOCK)
    found = session.execute(
        select(PublishedKey.purpose, PublishedKey.retired_at).where(PublishedKey.id == key_id)
    ).one_or_none()
    if found is None:
        raise NotFound("No key of this id was published; see `lethe keys list`.")
    at = moment(session)
    purpose, retired_at = found
    if retired_at is not None and retired_at <= at:
        return retired_at
    _retire(session, [key_id], Purpose(purpose), at)
    return at


def published(session: Session, purpose: Purpose | None = None) -> list[VerifyingKey]:
    """Return the keys of a purpose, or of all, oldest first, retired ones included."""
    rows = select(PublishedKey).order_by(PublishedKey.introduced_at, PublishedKey.id)
    if purpose is not None:
        rows = rows.where(PublishedKey.purpose == purpose)
    return [
        VerifyingKey(
            public=load_keys(row.public_pem.encode())[0].public,
            purpose=row.purpose,
            introduced_at=row.introduced_at,
            retired_at=row.retired_at,
        )
        for row in session.scalars(rows.execution_options(populate_existing=True))
    ]


def subject_of(key_id: str) -> UUID:
    """Return the subject of a key's log entries, from its thumbprint URI (RFC 9278)."""
    return uuid5(NAMESPACE_URL, f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{key_id}")


def is_published(session: Session, key: SigningKey) -> bool:
    """Tell whether a key was used here before."""
    return _known(session, key) is not None


def moment(session: Session) -> datetime:
    """Return the time in whole seconds, as a JWK has them, by the clock that all signers share."""
    at: datetime = session.scalars(select(func.clock_timestamp())).one()
    return at.replace(microsecond=0)


def _known(session: Session, key: SigningKey) -> Row[bool, datetime | None] | None:
    return session.execute(
        select(PublishedKey.generated, PublishedKey.retired_at).where(PublishedKey.id == key.id)
    ).one_or_none()


def _publish(session: Session, key: SigningKey) -> None:
    at = moment(session)
    former = session.scalars(
        select(PublishedKey.id)
        .where(
            PublishedKey.purpose == key.purpose,
            or_(PublishedKey.retired_at.is_(None), PublishedKey.retired_at > at + OVERLAP),
        )
        .order_by(PublishedKey.introduced_at, PublishedKey.id)
    ).all()
    session.add(
        PublishedKey(
            id=key.id,
            purpose=key.purpose,
            public_pem=to_pem(key.public.public),
            generated=key.generated,
            introduced_at=at,
        )
    )
    session.flush()
    facts = {
        "kid": key.id,
        "purpose": key.purpose,
        "generated": key.generated,
        "public_key": to_jwk(key.public),
    }
    ledger.append(session, [ledger.Entry("key.introduced", subject_of(key.id), facts)])
    _retire(session, former, key.purpose, at + OVERLAP)


def _retire(session: Session, ids: Sequence[str], purpose: Purpose, at: datetime) -> None:
    session.execute(update(PublishedKey).where(PublishedKey.id.in_(ids)).values(retired_at=at))
    facts = {"purpose": purpose, "retired_at": at.isoformat()}
    ledger.append(
        session,
        [
            ledger.Entry("key.retired", subject_of(key_id), {"kid": key_id, **facts})
            for key_id in ids
        ],
    )
