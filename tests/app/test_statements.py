"""Statements that are sent together do what they would do one after another."""

import traceback

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.db import transaction
from app.statements import Row, Statement, ask

MAKE = Statement("CREATE TABLE numbers (number bigint PRIMARY KEY)", prepared=False)
COUNT = Statement("SELECT count(*), sum(number)::bigint FROM numbers", prepared=False)
ENDED = Statement("SELECT pg_terminate_backend(pg_backend_pid())", prepared=False)
PREPARED = Statement("SELECT statement FROM pg_prepared_statements", prepared=False)


def put(*numbers: int) -> Statement:
    return Statement(
        "INSERT INTO numbers SELECT unnest(%(numbers)s::bigint[])", {"numbers": list(numbers)}
    )


@pytest.fixture(autouse=True)
def numbers(environment: dict[str, str]) -> None:
    with transaction() as session:
        ask(session, MAKE)


def stored() -> list[Row]:
    with transaction() as session:
        return ask(session, COUNT)[0]


def test_each_sees_what_those_before_it_did_and_the_rows_come_back_by_statement() -> None:
    with transaction() as session:
        assert ask(session, COUNT, put(1, 2), COUNT, put(5), COUNT) == [
            [(0, None)],
            [],
            [(2, 3)],
            [],
            [(3, 8)],
        ]
    assert stored() == [(3, 8)]


def test_they_are_part_of_the_transaction() -> None:
    with transaction() as session:
        ask(session, put(1), put(2))
        session.execute(text("INSERT INTO numbers VALUES (3)"))
        assert ask(session, COUNT) == [[(3, 6)]]
        session.rollback()
    assert stored() == [(0, None)]


@pytest.mark.parametrize(
    "statements", [[put(7, 7)], [put(1), put(7, 7), put(2)]], ids=["alone", "among others"]
)
def test_a_failure_is_the_one_that_sqlalchemy_would_raise_and_nothing_is_stored(
    statements: list[Statement],
) -> None:
    with pytest.raises(IntegrityError) as caught, transaction() as session:
        ask(session, *statements)
    assert caught.value.orig is not None
    assert caught.value.orig.sqlstate == "23505"  # type: ignore[attr-defined]
    assert stored() == [(0, None)]
    with transaction() as session:
        assert ask(session, put(1), COUNT)[1] == [(1, 1)]


def test_a_failure_quotes_no_parameters() -> None:
    marked = Statement("SELECT %(marked)s::bytea", {"marked": "\\x5a:marked"})
    with pytest.raises(DBAPIError) as caught, transaction() as session:
        ask(session, COUNT, marked)
    # The database's own words may quote what is malformed; of digests nothing is.
    caught.value.orig = None
    assert "marked" not in str(caught.value)
    assert caught.value.params is None
    assert caught.value.statement is None


def test_a_connection_that_ends_is_not_used_again() -> None:
    with pytest.raises(OperationalError) as caught, transaction() as session:
        ask(session, put(1), ENDED, put(2))
    assert traceback.format_exception(caught.value)
    assert stored() == [(0, None)]


def test_only_those_for_which_one_plan_does_are_prepared() -> None:
    with transaction() as session:
        for _ in range(10):
            ask(session, put(), COUNT)
            session.execute(text("SELECT 1"))
        assert ask(session, PREPARED) == [[(put().text.replace("%(numbers)s", "$1"),)]]
