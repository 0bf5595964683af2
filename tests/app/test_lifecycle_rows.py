"""Rows that are inserted past the session have begun, and moved, as all others do."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import lifecycle
from app.db import now, transaction
from app.errors import IllegalMove
from app.statements import ask
from app.statuses import RequestStatus
from app.tables import DeletionRequest
from tests.app.watching import statements

pytestmark = pytest.mark.usefixtures("environment")

UNIQUE = (DeletionRequest.client, DeletionRequest.idempotency_key_digest)


def request(key: bytes | None = None) -> DeletionRequest:
    return DeletionRequest(
        id=uuid4(),
        client="shop",
        idempotency_key_digest=key,
        body_digest=b"\0\xff",
        regulation="gdpr",
        reference='a "quoted" \\ reference, \u2028 é',
        sample_count=2**40,
        id_key_id="k",
        received_at=now(),
        paused_for=timedelta(days=400, microseconds=1),
    )


def insert(session: Session, *rows: DeletionRequest) -> set[UUID]:
    for row in rows:
        lifecycle.begun(row, {})
    return {id_ for (id_,) in ask(session, lifecycle.insertion(rows, UNIQUE))[0]}


def columns_of(row: DeletionRequest) -> dict[str, object]:
    return {column.key: getattr(row, column.key) for column in DeletionRequest.__table__.c}


def test_what_is_inserted_is_what_the_session_would_have_inserted() -> None:
    row = request(b"key")
    with transaction() as session:
        assert insert(session, row) == {row.id}
    with transaction() as session:
        assert columns_of(session.get_one(DeletionRequest, row.id)) == columns_of(row)


def test_those_whose_key_is_taken_are_left_out_also_among_themselves() -> None:
    first, same, other, keyless = request(b"1"), request(b"1"), request(b"2"), request()
    with transaction() as session:
        assert insert(session, first, same, other, keyless) == {first.id, other.id, keyless.id}
    again = request(b"2")
    with transaction() as session:
        assert insert(session, again) == set()


def test_a_row_begins_where_rows_begin_and_moves_as_they_do() -> None:
    row = request()
    begun = lifecycle.begun(row, {"n": 1})
    assert (row.status, begun.event) == ("pending", "deletion_request.pending")
    assert (begun.subject, begun.facts) == (row.id, {"n": 1})
    moved = lifecycle.moved(row, RequestStatus.NOTHING_FOUND, {"n": 2})
    assert (row.status, moved.event) == ("nothing_found", "deletion_request.nothing_found")
    with pytest.raises(IllegalMove):
        lifecycle.moved(row, RequestStatus.COMPLETED, {})
    assert row.status == "nothing_found"


def test_a_kept_row_is_known_to_the_session_and_not_read_again() -> None:
    row = request()
    with transaction() as session:
        insert(session, row)
        with statements() as sent:
            assert lifecycle.keep(session, [row]) == [row]
            assert session.get(DeletionRequest, row.id) is row
            assert (row.rejection, row.finished_at) == (None, None)
            session.flush()
        assert sent == []
        # From now on what changes is written, and what others change is read.
        row.reference = "another"
        lifecycle.move(session, DeletionRequest, [row.id], RequestStatus.HELD)
        assert row.status == "held"
    with transaction() as session:
        assert session.scalars(select(DeletionRequest.reference)).all() == ["another"]


def test_keeping_a_row_twice_changes_nothing() -> None:
    row = request()
    with transaction() as session:
        insert(session, row)
        lifecycle.keep(session, [row])
        row.reason = "a reason"
        lifecycle.keep(session, [row])
    with transaction() as session:
        assert session.get_one(DeletionRequest, row.id).reason == "a reason"
