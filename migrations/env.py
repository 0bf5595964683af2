"""Run the migrations in one transaction, one process at a time."""

from alembic import context

from app.db import engine, lock_connection
from app.tables import Base

with engine().connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        lock_connection(connection, "migrations")
        context.run_migrations()
