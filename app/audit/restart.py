"""Go on under another name after entries were lost that had been signed.

A log that signed a head and then lost entries below it can sign nothing more under its name without
contradicting itself. Under another one, it can: what was signed before stays what it was, and the
break is an entry of the log.
"""

from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid4, uuid5

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app.audit import ledger, signed_heads
from app.db import lock
from app.tables import LogOrigin, WitnessFeed


@dataclass(frozen=True, slots=True)
class Restarted:
    """The names of the log, before and from now on."""

    former: str
    name: str


def restart(session: Session, remembered_size: int = 0) -> Restarted:
    """Give the log a new name, and tell of it in the log; witnesses begin anew with it.

    The entry has the largest size that is known to have been signed: the database may have
    forgotten what the witness file remembers.

    The caller puts the witness file away once this is committed, and not before: with the former
    name and without the file, something else than before could be signed.
    """
    lock(session, "signed-heads")
    renamed = Restarted(signed_heads.origin(session), f"lethe/{uuid4()}")
    signed = signed_heads.latest(session)
    session.execute(update(LogOrigin).values(origin=renamed.name))
    session.execute(delete(WitnessFeed))
    signed_size = 0 if signed is None else signed.checkpoint.size
    facts = {
        "former_origin": renamed.former,
        "former_size": max(signed_size, remembered_size),
        "origin": renamed.name,
    }
    subject = uuid5(NAMESPACE_URL, f"urn:lethe:log:{renamed.name}")
    ledger.append(session, [ledger.Entry("log.restarted", subject, facts)])
    return renamed
