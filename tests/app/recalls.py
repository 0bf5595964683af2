"""What recipients and the operator do in these tests, over HTTP."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.db import transaction
from app.tables import Delivery, Notice
from tests.app import working

URL = "https://checkout.example.com:8443/hooks/lethe?token=t0k3n"
RECIPIENTS = "/v1/models/{}/recipients"


@dataclass(frozen=True, slots=True)
class Office:
    """Where recipients are registered, told and heard."""

    http: TestClient

    def model_id(self, name: str = "digits") -> UUID:
        return UUID(self.http.get(f"/v1/models/{name}").json()["id"])

    def register(self, name: str, url: str | None = None, model: str = "digits") -> Any:
        answer = self.http.post(RECIPIENTS.format(model), json={"name": name, "url": url})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def forget(self, *samples: str) -> None:
        """Publish a version of each model that held the samples, without them."""
        answer = self.http.post("/v1/deletion-requests", json={"sample_ids": samples})
        assert answer.status_code == 202
        for job_id in working.plan():
            working.publish(working.hold(job_id))

    def notices(self, **query: Any) -> Any:
        answer = self.http.get("/v1/notices", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def acknowledge(self, notice_id: str, by: str = "on-call") -> Any:
        return self.http.post(f"/v1/notices/{notice_id}/acknowledgement", json={"by": by})


def make_older(age: timedelta) -> None:
    """Let every notice have been made so long ago."""
    with transaction() as session:
        session.execute(update(Notice).values(created_at=func.now() - age))


def deliveries() -> list[Delivery]:
    with transaction() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at)))


def delivery(id_: UUID) -> Delivery:
    with transaction() as session:
        return session.get_one(Delivery, id_)


def make_due() -> None:
    """End every pause between attempts, and the time of whoever claimed one."""
    with transaction() as session:
        session.execute(update(Delivery).values(not_before=func.now() - timedelta(seconds=1)))
