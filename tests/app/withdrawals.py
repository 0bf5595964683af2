"""Withdrawals as clients send them, and what they leave behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db import transaction
from app.tables import ManifestEntry


@dataclass(frozen=True, slots=True)
class Desk:
    """Where clients withdraw what they asked for, over HTTP."""

    http: TestClient
    digest: Callable[[str], bytes]

    def cancel(self, location: str) -> Any:
        answer = self.http.post(location + "/cancel")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def too_late(self, location: str) -> bool:
        """Try to withdraw a request; tell whether that was answered as too late."""
        answer = self.http.post(location + "/cancel")
        assert answer.status_code in (200, 409)
        if answer.status_code == 409:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["type"] == "urn:lethe:problem:too-late"
        return answer.status_code == 409

    def status(self, location: str) -> str:
        return str(self.http.get(location).json()["status"])

    def forgotten(self, model_id: UUID, samples: str = "abcdef") -> str:
        """Tell which of these samples, one letter each, a model has forgotten."""
        entries = select(ManifestEntry.sample_digest).where(
            ManifestEntry.model_id == model_id, ManifestEntry.forgotten_by_job_id.is_not(None)
        )
        with transaction() as session:
            gone = set(session.scalars(entries))
        return "".join(sample for sample in samples if self.digest(sample) in gone)
