"""The engine and the one way to open a transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from threading import Lock

from sqlalchemy import create_engine, func, select, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from app.settings import settings

# The newest migration; a test holds it against the migrations folder.
SCHEMA_REVISION = "0010"
# Executions after which the driver prepares any statement: never.
PREPARED_BY_ITSELF = 2**31


_first = Lock()


def engine() -> Engine:
    """Return this process's engine; each process makes its own, after any fork."""
    # Threads that ask for the first one at once get the same: a second one's connections would be
    # nobody's to close.
    with _first:
        return _engine()


@cache
def _engine() -> Engine:
    return create_engine(
        settings().database_url.get_secret_value(),
        # A PostgreSQL that was restarted leaves dead connections in the pool.
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        # Sample digests are in the parameters; they do not belong into exceptions and logs.
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            # A prepared statement may get one plan for all values of its parameters; a status that
            # is a parameter then rules out the indexes on the rows of one status. Only those for
            # which one plan does are prepared: they say so, see ``app.statements``.
            "prepare_threshold": PREPARED_BY_ITSELF,
            # A claim that hangs on a lock would look like a dead worker.
            "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s "
            "-c timezone=UTC",
        },
    )


@cache
def _sessions() -> sessionmaker[Session]:
    # What a route answers with is read from the rows after the commit.
    return sessionmaker(engine(), expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a session and commit at the end of the block, or roll back when it raises.

    The commit has happened when the block is left, so what follows may tell the world.
    """
    with _sessions().begin() as session:
        yield session


def now() -> datetime:
    """Return the time that a row records."""
    return datetime.now(UTC)


def lock(session: Session, name: str, *, shared: bool = False) -> None:
    """Hold a lock of this name until the transaction ends; shared holders exclude no others."""
    function = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    session.execute(select(function(func.hashtextextended("lethe/" + name, 0))))


def lock_connection(connection: Connection, name: str) -> None:
    """Hold a lock of this name until the connection's transaction ends."""
    connection.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended("lethe/" + name, 0)))
    )


def try_lock(session: Session, name: str) -> bool:
    """Take a lock of this name until the transaction ends, unless somebody holds it."""
    key = func.hashtextextended("lethe/" + name, 0)
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def clock(session: Session) -> datetime:
    """Return the database's time, which all processes share."""
    at: datetime = session.scalars(select(func.clock_timestamp())).one()
    return at


def is_migrated() -> bool:
    """Tell whether the database has the tables that this code expects.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.

    """
    with transaction() as session:
        exists = session.scalar(select(func.to_regclass("alembic_version")))
        if exists is None:
            return False
        revision = session.scalar(text("SELECT version_num FROM alembic_version"))
        return bool(revision == SCHEMA_REVISION)
