"""Callbacks of OpenDSR: each address of a request is told when its status there changes."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import rfc8785
from sqlalchemy import ARRAY, Uuid, any_, bindparam, select, update
from sqlalchemy.orm import Session

from app.callbacks import announcing
from app.keys import KeyRefused
from app.opendsr import signing
from app.opendsr.standing import Standing, standings, status_of, tell
from app.tables import Base, DeletionRequest, Signer, SubjectRequest, SubjectRequestStatus
from app.webhooks import outbox, signers
from app.webhooks.outbox import Message, Outgoing

# Requests that a session found to be no controller's. They stay so: a request that is one's is
# committed together with what says so.
_WITHOUT = "requests without a controller"

# Built once, and past the ORM: each transaction that takes requests in asks this.
_TABLE = Base.metadata.tables[SubjectRequest.__tablename__]
_AMONG = select(_TABLE.c.deletion_request_id).where(
    _TABLE.c.deletion_request_id == any_(bindparam("request_ids", type_=ARRAY(Uuid)))
)


def begin(session: Session, subject: SubjectRequest, request: DeletionRequest) -> None:
    """Store a controller's request, and tell what has become of it since it was taken in."""
    subject.deletion_request_id = request.id
    session.add(subject)
    session.flush()
    _without(session).discard(request.id)
    announce(session, [request])


def announce(session: Session, moved: Collection[DeletionRequest]) -> None:
    """Have each address told where its request stands now, if that is news.

    They are sent once the caller's transaction commits, those of one address and request in order.
    """
    requests = _of_controllers(session, moved)
    subjects: list[SubjectRequest] = []
    for status in SubjectRequestStatus:
        ids = [request.id for request in requests if status_of(request) is status]
        subjects += _newly(session, status, ids)
    told = [subject for subject in subjects if subject.callback_urls]
    outbox.enqueue_all(
        session,
        [
            _message(standing, url)
            for standing in standings(session, told, requests)
            for url in standing.subject.callback_urls
        ],
    )


def callback(standing: Standing, url: str) -> dict[str, Any]:
    """Return what one address is told."""
    return {**tell(standing), "status_callback_url": url}


def sign(message: Message, _: int) -> Mapping[str, str]:
    """Return the headers that sign a callback.

    Raises:
        CannotSign: this process has no key for it.

    """
    try:
        known = signing.processor()
    except KeyRefused:
        known = None
    if known is None:
        raise signers.CannotSign("not signing")
    return known.headers(message.body)


def _without(session: Session) -> set[UUID]:
    known: set[UUID] = session.info.setdefault(_WITHOUT, set())
    return known


def _of_controllers(
    session: Session, requests: Collection[DeletionRequest]
) -> list[DeletionRequest]:
    without = _without(session)
    asked = {request.id: request for request in requests if request.id not in without}
    if not asked:
        return []
    found = set(session.connection().scalars(_AMONG, {"request_ids": list(asked)}))
    without |= asked.keys() - found
    return [request for id_, request in asked.items() if id_ in found]


def _newly(
    session: Session, status: SubjectRequestStatus, request_ids: Collection[UUID]
) -> list[SubjectRequest]:
    """Return those of the requests of which another status was told last; now it is this one."""
    if not request_ids:
        return []
    given = bindparam("request_ids", list(request_ids), ARRAY(Uuid))
    return list(
        session.scalars(
            update(SubjectRequest)
            .where(
                SubjectRequest.deletion_request_id == any_(given),
                SubjectRequest.told_status != status,
            )
            .values(told_status=status)
            .returning(SubjectRequest)
            .execution_options(populate_existing=True, synchronize_session=False)
        )
    )


def _message(standing: Standing, url: str) -> Outgoing:
    return Outgoing(
        url=url,
        event=f"opendsr.{status_of(standing.request)}",
        payload=rfc8785.dumps(callback(standing, url)).decode(),
        signer=Signer.OPENDSR,
        request_id=standing.request.id,
        client=standing.subject.client,
        lane=outbox.lane_of(url, standing.request.id),
    )


signers.add(Signer.OPENDSR, sign)
announcing.add(announce)
