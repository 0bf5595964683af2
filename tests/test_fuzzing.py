"""Nothing that the description of the API allows, or forbids, makes the service break a promise.

Schemathesis draws requests from the OpenAPI document, and holds each answer against it with all of
its checks. What it draws is the same each time; LETHE_FUZZING_EXAMPLES=200 looks further.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.artifacts import ArtifactStore
from app.db import transaction
from app.events.broadcast import Broadcast, Limits
from app.jobs import publication
from app.jobs.publication import NewVersion
from app.main import create_app
from app.settings import settings
from tests.app import working
from tests.app.controllers import asking, set_up
from tests.app.working import NOW
from tests.conftest import API_KEY, ROOT
from tests.fuzzing.hooks import CHECKPOINT, URL
from tests.serving import serving

PHASES = ("examples", "coverage", "fuzzing", "stateful")
SAMPLES = ("a", "b", "c")


def things(client: TestClient) -> dict[str, list[str]]:
    """Make something of each kind; return what finds it, by the names of path parameters."""

    def made(path: str, body: dict[str, Any]) -> str:
        answer = client.post(path, json=body)
        assert answer.status_code in (201, 202), answer.text
        return str(answer.json()["id"])

    callback = made("/v1/callbacks", {"url": URL})
    recipient = made("/v1/models/digits/recipients", {"name": "web", "url": URL})
    requests = [
        made("/v1/deletion-requests", {"sample_ids": [sample], "regulation": law})
        for law in ("gdpr", "ccpa", "none")
        for sample in (*SAMPLES, "nobody")
    ]
    keys = [
        made("/v1/access-keys", {"name": f"app-{number}", "scopes": ["erasure:read"]})
        for number in range(2)
    ]
    controlled = asking("a")
    client.post("/opendsr/2.0/requests", json=controlled).raise_for_status()
    [job] = working.plan()
    stored = ArtifactStore(settings().artifacts_folder).put([b"the second version"])
    new = NewVersion(stored.digest, stored.size_bytes, "iau", "approximate", "passed", drift=0.25)
    with transaction() as session:
        publication.publish(session, working.hold(job), new, [working.PASSED])
    requests.append(made("/v1/deletion-requests", {"sample_ids": ["nobody"]}))
    return {
        "job_id": [str(job)],
        "notice_id": [each["id"] for each in client.get("/v1/notices").json()["items"]],
        "request_id": requests,
        "name": ["digits"],
        "number": ["1", "2"],
        "digest": [ArtifactStore(settings().artifacts_folder).put([CHECKPOINT]).digest],
        "recipient_id": [recipient],
        "callback_id": [callback],
        "delivery_id": [each["id"] for each in client.get("/v1/deliveries").json()["items"]],
        "key_id": keys,
        "subject_request_id": [controlled["subject_request_id"]],
        "sample_digest": ["0" * 64],
    }


@pytest.mark.timeout(900)
def test_no_answer_breaks_what_the_description_promises(
    ready: Callable[..., UUID],
    reread: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    ready("digits", SAMPLES, NOW)
    reread("LETHE_CUSTOM_CLOCK", '{"term": {"days": 30}, "extension": {"days": 30}}')
    headers = {"Authorization": f"Bearer {API_KEY}"}
    # Streams that last no longer than it takes to see what comes first.
    brief = Broadcast(Limits(interval=0.05, lifetime=0.1))
    with set_up(reread, tmp_path), serving(served := create_app()) as url:
        served.state.events = brief
        with TestClient(create_app(), headers=headers) as client:
            known = things(client)
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"),
                f"--config-file={ROOT / 'tests' / 'fuzzing' / 'schemathesis.toml'}",
                "run",
                f"{url}/openapi.json",
                "--checks=all",
                f"--phases={','.join(PHASES)}",
                f"--header=Authorization: Bearer {API_KEY}",
                f"--max-examples={os.environ.get('LETHE_FUZZING_EXAMPLES', '5')}",
                "--continue-on-failure",
                "--no-color",
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LETHE_FUZZING": json.dumps(known)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    (tmp_path / "report.txt").write_text(done.stdout)
    for phase in PHASES:
        assert phase.capitalize() in done.stdout
    if "LETHE_FUZZING_EXAMPLES" in os.environ:
        print(done.stdout)  # noqa: T201
