"""Where those sit who decide about requests, over HTTP, and what the log keeps of it."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

from app.audit import service as audit

REQUESTS = "/v1/deletion-requests"


@dataclass(frozen=True, slots=True)
class Office:
    """Decides, and looks at what became of it."""

    http: TestClient

    def ask(self, *samples: str, **more: Any) -> str:
        answer = self.http.post(REQUESTS, json={"sample_ids": samples, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def send(self, request: str, action: str, **body: Any) -> Any:
        return self.http.post(f"{REQUESTS}/{request}/{action}", json=body or None)

    def decide(self, request: str, action: str, **body: Any) -> dict[str, Any]:
        answer = self.send(request, action, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, request: str, action: str, **body: Any) -> str:
        """Return the words of a refusal."""
        answer = self.send(request, action, **body)
        assert answer.status_code == 409, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        return str(answer.json()["detail"])

    def look(self, request: str) -> dict[str, Any]:
        answer = self.http.get(f"{REQUESTS}/{request}")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    def status(self, request: str) -> str:
        return str(self.look(request)["status"])

    def decisions(self, request: str) -> list[dict[str, Any]]:
        """Return them oldest first."""
        answer = self.http.get(f"{REQUESTS}/{request}/decisions")
        assert answer.status_code == 200
        found: list[dict[str, Any]] = answer.json()["items"]
        return found[::-1]

    def log(self, request: str) -> list[dict[str, Any]]:
        """Return what the log says about a request, oldest first."""
        audit.place_all()
        items = self.http.get(
            "/v1/audit/entries", params={"subject": str(UUID(request)), "limit": 100}
        ).json()["items"]
        return [json.loads(item["entry"]) for item in items]

    def events(self, request: str) -> list[str]:
        return [entry["event"] for entry in self.log(request)]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)
