import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from embedded import state
from embedded.errors import FolderRefused
from embedded.running import Running
from embedded.state import SECRETS_FILE, claim


def test_only_its_owner_can_read_a_new_state_folder(tmp_path: Path):
    with claim(tmp_path / "state") as claimed:
        modes = {path.name: path.stat().st_mode & 0o777 for path in claimed.folder.iterdir()}
    assert claimed.folder.stat().st_mode & 0o777 == 0o700
    private = (
        *("secrets.json", "lock", "programs.lock", "log-key.pem", "weights-key.pem"),
        *("opendsr-key.pem", "opendsr-certificate.pem"),
    )
    assert modes == {**dict.fromkeys(private, 0o600), "logs": 0o700}


def test_secrets_are_made_once_and_differ_between_folders(tmp_path: Path):
    found = []
    for name in ("one", "one", "other"):
        with claim(tmp_path / name) as claimed:
            found.append(claimed.secrets)
    assert found[0] == found[1]
    assert len(bytes.fromhex(found[0].id_key)) == 32
    values = [value for one in found[1:] for value in asdict(one).values() if value]
    assert len(values) == 8
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"api_key": 1}'])
def test_damaged_secrets_are_refused_and_left_as_they_are(tmp_path: Path, text: str):
    with claim(tmp_path):
        pass
    (tmp_path / SECRETS_FILE).write_text(text)
    with pytest.raises(FolderRefused, match="orphan every digest"), claim(tmp_path):
        pass
    assert (tmp_path / SECRETS_FILE).read_text() == text


def test_secrets_missing_beside_data_are_refused(tmp_path: Path):
    (tmp_path / "data").mkdir()
    with pytest.raises(FolderRefused, match="is gone"), claim(tmp_path):
        pass
    assert not (tmp_path / SECRETS_FILE).exists()


def test_a_folder_in_use_is_refused_until_it_is_given_back(tmp_path: Path):
    with claim(tmp_path), pytest.raises(FolderRefused, match="already runs"), claim(tmp_path):
        pass
    with claim(tmp_path) as claimed:
        assert claimed.folder == tmp_path.resolve()


def test_a_folder_stays_in_use_until_the_last_program_of_a_crashed_run_is_gone(
    tmp_path: Path, monkeypatch
):
    with claim(tmp_path) as claimed:
        program = Running(
            "program",
            [sys.executable, "-c", "import signal; signal.pause()"],
            log=claimed.logs / "program.log",
            environment={},
            cwd=tmp_path,
            held=[claimed.lock],
        )
    monkeypatch.setattr(state, "PREDECESSOR_SECONDS", 0.1)
    with pytest.raises(FolderRefused, match="earlier run"), claim(tmp_path):
        pass
    program.stop()
    with claim(tmp_path) as again:
        assert again.secrets == claimed.secrets


def test_secrets_do_not_show_when_printed(tmp_path: Path):
    with claim(tmp_path) as claimed:
        assert claimed.secrets.id_key not in repr(claimed)
