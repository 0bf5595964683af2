"""What programs write is found in whatever spelling they write it."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.checker.bytes_written import holding, phantoms, plaintext

MARK = "MARK-0123456789abcdef"
ID = f"{MARK}-00001"
SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "wide": lambda text: text.encode("utf-16-le"),
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "json": lambda text: json.dumps(text).encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 after one byte": lambda text: base64.b64encode(b"x" + text.encode()),
    "base64 after two bytes": lambda text: base64.b64encode(b"xy" + text.encode()),
    "hash": lambda text: hashlib.sha256(text.encode()).digest(),
    "hash in hexadecimal": lambda text: hashlib.sha256(text.encode()).hexdigest().encode(),
}


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
def test_a_sample_id_is_found_in_a_file_and_in_a_stream(spelling: str, tmp_path: Path) -> None:
    written = b"before\0" + SPELLINGS[spelling](ID) + b"after"
    assert list(plaintext([tmp_path], {"stream": b"nothing"}, MARK, [ID])) == []
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(written)
    found = [v.what for v in plaintext([tmp_path], {"stream": written}, MARK, [ID])]
    assert {what.split(" holds")[0] for what in found} == {
        "stream",
        str(tmp_path / "folder" / "file"),
    }


def test_what_lies_behind_a_link_is_searched_once_it_is_named(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "file").write_text(ID)
    (folder / "link").symlink_to(elsewhere)
    assert holding([folder], {}, MARK) == []
    assert holding([folder, folder / "link"], {}, MARK) == [str(elsewhere / "file")]


def test_only_nudges_of_unknown_jobs_are_phantoms(tmp_path: Path) -> None:
    lines = [json.dumps({"job": 1, "event": event}) for event in ("job.claimed", "job.unknown")]
    (tmp_path / "worker-1.log").write_text("\n".join([*lines, "no JSON"]))
    (tmp_path / "api.log").write_text(lines[1])
    assert [violation.what for violation in phantoms(tmp_path)] == [f"worker-1.log: {lines[1]}"]
