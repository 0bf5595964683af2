"""The key of a new service is shown once; a terminal remembers what it was shown."""

import json
import runpy
from pathlib import Path

from embedded import __main__ as cli
from embedded.commands import API_KEY
from embedded.servers import Servers
from embedded.state import SECRETS_FILE
from embedded.supervisor import BROKER_URL, DATABASE_URL, Supervisor

stand_ins = runpy.run_path(str(Path(__file__).with_name("stand_in.py")))["programs"]


def test_the_key_is_shown_at_the_first_start_alone(
    folder: Path, place: Path, servers: Servers, monkeypatch, capfd
):
    monkeypatch.delenv(API_KEY, raising=False)
    monkeypatch.setenv(DATABASE_URL, servers.database_url)
    monkeypatch.setenv(BROKER_URL, servers.broker_url)

    def shown() -> str:
        start = Supervisor(folder, port=0, programs=stand_ins(place), migrations=None)
        start.wait = lambda: None
        with monkeypatch.context() as patch:
            patch.setattr(cli, "stop_at_first_signal", lambda: None)
            assert cli.run(start) == 0
        return capfd.readouterr().out

    first, second = shown(), shown()
    key = json.loads((folder / SECRETS_FILE).read_text())["api_key"]
    assert key in first
    assert key not in second
    assert f"`api_key` in {folder / SECRETS_FILE}" in first
    assert f"`api_key` in {folder / SECRETS_FILE}" in second
    monkeypatch.setenv(API_KEY, "chosen by the user")
    third = shown()
    assert "that of LETHE_API_KEY" in third
    assert "chosen by the user" not in third
    assert key not in third
