"""Look into the service's database while it is killed and started again."""

from typing import Any

import psycopg

from tests.chaos.fleet import Fleet

OPEN = """
SELECT (SELECT count(*) FROM unlearning_jobs WHERE status IN ('queued', 'running'))
     + (SELECT count(*) FROM registered_models WHERE status = 'checking')
     + (SELECT count(*) FROM erasures e LEFT JOIN unlearning_jobs j ON j.id = e.job_id
        WHERE e.status IN ('pending', 'scheduled')
        -- No move leads out of there any more: waiting would not help, and the checker says so.
        AND NOT (e.status = 'scheduled' AND j.status NOT IN ('queued', 'running')))
"""


class Database:
    """Short questions, for one thread; a connection that was cut is made anew."""

    def __init__(self, fleet: Fleet) -> None:
        """Connect at the first question."""
        self._fleet = fleet
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, question: str, *parameters: Any) -> list[tuple[Any, ...]] | None:
        """Return what the database answers, or None while it does not."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._fleet.database_url, connect_timeout=5, autocommit=True
                )
            return self._connection.execute(question, parameters).fetchall()
        except psycopg.OperationalError:
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def is_quiet(self) -> bool:
        """Tell whether nothing is pending, queued or under way."""
        return self.rows(OPEN) == [(0,)]

    def running(self, model: str | None = None) -> tuple[str, int, str] | None:
        """Return a running job, of one model or any: its id, its fence and its worker."""
        found = self.rows(
            "SELECT j.id::text, j.fence, j.worker FROM unlearning_jobs j "
            "JOIN registered_models m ON m.id = j.model_id "
            "WHERE j.status = 'running' AND (m.name = %s OR %s::text IS NULL) "
            "ORDER BY j.started_at DESC LIMIT 1",
            model,
            model,
        )
        return found[0] if found else None

    def is_training(self, model: str) -> bool:
        """Tell whether a job of the model reports that its method has begun."""
        found = self.rows(
            "SELECT j.id FROM unlearning_jobs j JOIN registered_models m ON m.id = j.model_id "
            "WHERE m.name = %s AND j.status = 'running' AND j.progress->>'phase' LIKE 'unlearn%%'",
            model,
        )
        return bool(found)

    def is_claimed_anew(self, job_id: str, fence: int) -> bool:
        """Tell whether a job has been claimed again since a claim, or has ended."""
        found = self.rows("SELECT fence, status FROM unlearning_jobs WHERE id::text = %s", job_id)
        if not found:
            return False
        [(newest, status)] = found
        return bool(newest > fence or status not in ("running", "queued"))

    def attempts(self, request_id: str) -> list[int]:
        """Return how often the jobs of a request were claimed."""
        found = self.rows(
            "SELECT j.attempts FROM erasures e JOIN unlearning_jobs j ON j.id = e.job_id "
            "WHERE e.request_id::text = %s",
            request_id,
        )
        return [attempts for (attempts,) in found or []]
