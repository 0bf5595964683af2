"""Messages are signed by secrets that change without a message lost, and stay secret."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.outboxes import send_all
from tests.app.purges import entries
from tests.app.recalls import make_due
from tests.app.receivers import Receiver, listening
from tests.app.subscribers import (
    Subscribers,
    callback,
    key_of,
    let_overlap_end,
    promised,
    signed_by,
)


@pytest.fixture(autouse=True)
def _loopback_over_plain_http(reread: Callable[[str, str], None]) -> None:
    reread("LETHE_MODE", "embedded")
    reread("LETHE_WEBHOOK_PRIVATE_NETWORKS", "127.0.0.0/8")


@pytest.fixture
def clients(client: TestClient) -> Subscribers:
    return Subscribers(client)


def test_after_a_rotation_both_secrets_sign_for_a_day_and_then_the_new_one_alone(
    clients: Subscribers,
) -> None:
    with listening() as receiver:
        made = clients.at(receiver.port)
        clients.ping(made["id"])
        send_all()
        rotated = clients.rotate(made["id"])
        until = datetime.fromisoformat(rotated["former_secret_until"])
        assert abs(until - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)
        clients.ping(made["id"])
        send_all()
        again = clients.rotate(made["id"])
        clients.ping(made["id"])
        send_all()
        let_overlap_end()
        assert clients.get(made["id"])["former_secret_until"] is None
        clients.ping(made["id"])
        send_all()
    secrets = [made["secret"], rotated["secret"], again["secret"]]
    assert len(set(secrets)) == 3
    signed = [[signed_by(secret, got) for secret in secrets] for got in receiver.received]
    assert signed == [
        [True, False, False],
        [True, True, False],
        [False, True, True],
        [False, False, True],
    ]
    # What is not to sign any more is not kept.
    assert (callback(made["id"]).former_secret, callback(made["id"]).former_until) == (None, None)
    assert len(entries("callback.rotated")) == 2


def test_what_waits_to_be_sent_is_signed_by_the_secret_of_the_day(clients: Subscribers) -> None:
    with listening(Receiver(status=500)) as receiver:
        made = clients.at(receiver.port)
        clients.ping(made["id"])
        send_all()
        rotated = clients.rotate(made["id"])
        let_overlap_end()
        make_due()
        send_all()
        first, second = receiver.received
    assert [signed_by(made["secret"], each) for each in (first, second)] == [True, False]
    assert signed_by(rotated["secret"], second)
    assert promised()[0].secret is None  # a callback's secret has no copies


def test_neither_secrets_nor_addresses_get_into_the_log(
    clients: Subscribers, capfd: pytest.CaptureFixture[str]
) -> None:
    with listening(Receiver(status=410)) as receiver:
        made = clients.register(f"http://127.0.0.1:{receiver.port}/MARKED?token=MARKED")
        secrets = [made["secret"], clients.rotate(made["id"])["secret"]]
        clients.ping(made["id"])
        send_all()
    written = "".join(capfd.readouterr())
    assert "callback.disabled" in written
    for word in ("MARKED", *secrets, *(key_of(each).hex() for each in secrets)):
        assert word not in written
    told = str(
        [
            each["facts"]
            for name in ("registered", "rotated")
            for each in entries("callback." + name)
        ]
    )
    assert "MARKED" not in told
    assert "whsec" not in told


def test_what_the_docs_tell_receivers_to_do_verifies_messages(clients: Subscribers) -> None:
    page = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # the page's own
    verify = names["is_from_lethe"]
    with listening() as receiver:
        made = clients.at(receiver.port)
        rotated = clients.rotate(made["id"])
        clients.ping(made["id"])
        send_all()
    [got] = receiver.received
    headers = {name.lower(): value for name, value in got.headers.items()}
    for secret in (made["secret"], rotated["secret"]):
        assert verify(secret, headers, got.body)
        assert not verify(secret, headers, got.body + b" ")
        old = str(int(headers["webhook-timestamp"]) - 301)
        assert not verify(secret, {**headers, "webhook-timestamp": old}, got.body)
    assert not verify(clients.register()["secret"], headers, got.body)
