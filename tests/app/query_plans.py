"""By which indexes PostgreSQL reads what a statement asks for."""

import re
from itertools import count

from app.db import transaction


def plan_of(statement: str) -> str:
    """The plan of a statement for any parameters."""
    numbers = count(1)
    named: dict[str, str] = {}
    query = re.sub(r"%\((\w+)\)s", lambda m: named.setdefault(m[1], f"${next(numbers)}"), statement)
    with transaction() as session, session.connection().connection.cursor() as cursor:
        # Tables as small as a test's are best read as a whole.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN (GENERIC_PLAN) {query}")
        return "\n".join(row[0] for row in cursor.fetchall())


def read_by(statement: str) -> set[str]:
    """The indexes, and the tables without one, of a plan for any parameters."""
    return set(re.findall(r"(?:Index Scan on|using|Seq Scan on) (\w+)", plan_of(statement)))
