import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app import keys
from embedded.errors import FolderRefused
from embedded.signing_keys import MARK
from embedded.state import SECRETS_FILE, claim

KINDS = {"log-key.pem": Ed25519PrivateKey, "weights-key.pem": EllipticCurvePrivateKey}


def contents(folder: Path) -> dict[str, bytes]:
    with claim(folder):
        return {name: (folder / name).read_bytes() for name in KINDS}


def test_keys_are_made_once_kept_over_restarts_and_differ_between_folders(tmp_path: Path):
    first, again = contents(tmp_path / "one"), contents(tmp_path / "one")
    other = contents(tmp_path / "other")
    assert first == again
    assert len({*first.values(), *other.values()}) == 4
    for name, kind in KINDS.items():
        assert isinstance(load_pem_private_key(first[name], None), kind)


def test_the_service_takes_a_generated_key_in_its_embedded_mode_alone(tmp_path: Path, monkeypatch):
    assert MARK == keys.GENERATED
    made = contents(tmp_path)
    assert all(MARK.encode() in content for content in made.values())
    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("LETHE_BROKER_URL", "redis://x")
    monkeypatch.delenv("LETHE_LOG_KEY", raising=False)
    monkeypatch.setenv("LETHE_LOG_KEY_FILE", str(tmp_path / "log-key.pem"))
    try:
        for mode in ("embedded", "production"):
            keys.settings.cache_clear()
            keys.log_key.cache_clear()
            monkeypatch.setenv("LETHE_MODE", mode)
            if mode == "embedded":
                assert keys.log_key().generated
            else:
                with pytest.raises(keys.KeyRefused, match="was generated"):
                    keys.log_key()
    finally:
        keys.settings.cache_clear()
        keys.log_key.cache_clear()


@pytest.mark.parametrize("name", KINDS)
def test_a_key_that_is_gone_is_refused_and_not_replaced(tmp_path: Path, name: str):
    contents(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FolderRefused, match=f"{name} is gone"), claim(tmp_path):
        pass
    assert not (tmp_path / name).exists()


def test_another_key_may_be_put_in_the_place_of_a_lost_one(tmp_path: Path):
    contents(tmp_path)
    (tmp_path / "log-key.pem").write_text("another key")
    assert contents(tmp_path)["log-key.pem"] == b"another key"


def test_a_folder_from_before_there_were_keys_gets_them_once(tmp_path: Path):
    contents(tmp_path)
    secrets = json.loads((tmp_path / SECRETS_FILE).read_text())
    del secrets["signing_keys"]
    (tmp_path / SECRETS_FILE).write_text(json.dumps(secrets))
    for name in KINDS:
        (tmp_path / name).unlink()
    (tmp_path / "data").mkdir()
    assert set(contents(tmp_path)) == set(KINDS)
    kept = json.loads((tmp_path / SECRETS_FILE).read_text())
    assert {name: kept[name] for name in secrets} == secrets
    (tmp_path / "log-key.pem").unlink()
    with pytest.raises(FolderRefused), claim(tmp_path):
        pass


def test_a_crash_between_the_keys_and_their_record_loses_neither(tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("embedded.signing_keys.NAMES", ("log-key.pem", "a folder/that is not there"))
        with pytest.raises(FileNotFoundError), claim(tmp_path):
            pass
    first = (tmp_path / "log-key.pem").read_bytes()
    assert contents(tmp_path)["log-key.pem"] == first
