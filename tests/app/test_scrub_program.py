"""The program tells damage from a check that could not be made, and never says too much."""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db import transaction
from app.scrub import __main__ as program
from app.tables import ModelVersion
from tests.app.gradient_ledgers import POLICY
from tests.app.scrubbing import check, damage, orphan, run, run_json, store

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def served(register: Callable[..., UUID]) -> ModelVersion:
    """The first version of a model called digits."""
    return check(register("digits", POLICY))


@contextmanager
def _closed(path: Path) -> Iterator[None]:
    """Keep this process out of a folder or a file, also where root runs it."""
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.chmod(0o700)


def test_the_exit_status_and_one_json_object_are_for_programs(
    served: ModelVersion, environment: dict[str, str]
) -> None:
    damage(served.digest, "altered")
    ended = subprocess.run(
        [sys.executable, "-m", "app.scrub", "--json", "--verbose"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    assert json.loads(ended.stdout)["damaged"][0]["model"] == "digits"
    assert f"checking digits, current version: {served.digest}" in ended.stderr


def test_a_store_that_is_not_mounted_is_no_damage(
    served: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, aside = store().folder, store().folder.with_name("aside")
    folder.rename(aside)
    for prepare in (lambda: None, folder.mkdir):  # no folder; an empty one, to mount it on
        prepare()
        status, found = run_json(capsys)
        assert (status, list(found)) == (2, ["could_not_run"])
        assert "mounted" in found["could_not_run"]
    folder.rmdir()
    aside.rename(folder)
    assert run(capsys)[0] == 0


def test_a_user_who_may_not_read_the_store_is_told_so(
    served: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store().path_of(served.digest)
    for closed in (store().folder, file.parent, file):
        with _closed(closed):
            status, found = run_json(capsys)
        assert (status, "service's user" in found["could_not_run"]) == (2, True)
    assert run(capsys)[0] == 0


def test_tables_of_another_version_are_not_read(
    served: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    with transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'other'"))
    status, found = run_json(capsys)
    assert (status, "migrate" in found["could_not_run"]) == (2, True)


def test_a_database_that_does_not_answer_is_no_damage_and_its_password_is_not_told(
    reread: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    reread("LETHE_DATABASE_URL", "postgresql://lethe:hunter2@127.0.0.1:1/lethe")
    assert program.main(["--json"]) == 2
    captured = capsys.readouterr()
    assert "database" in json.loads(captured.out)["could_not_run"]
    assert "could not scrub: The database" in captured.err
    assert "hunter2" not in captured.out + captured.err


def test_nothing_stored_is_clean_and_settings_that_are_not_complete_are_named(
    reread: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not store().folder.exists()
    assert run(capsys)[0] == 0  # a service that never stored anything is clean
    reread("LETHE_DATABASE_URL", "mysql://lethe:hunter2@127.0.0.1/lethe")
    assert program.main([]) == 2
    captured = capsys.readouterr()
    assert ("database_url" in captured.err, "hunter2" in captured.err) == (True, False)


@pytest.mark.parametrize("words", ["", "1", "1w", "-1d", "59m", "0d", "1d1h", "1.5d"])
def test_an_age_that_could_hit_work_under_way_is_refused(words: str) -> None:
    with pytest.raises(ArgumentTypeError, match="1h"):
        program.age(words)


def test_ages_are_read() -> None:
    found = [program.age(words) for words in ("60m", "12h", "7d")]
    assert found == [timedelta(hours=1), timedelta(hours=12), timedelta(days=7)]


def test_the_age_is_the_operators_to_choose(
    served: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store().path_of(orphan())  # two days old
    assert run_json(capsys, "--older-than", "3d", "--remove-leftovers")[1]["leftovers"] == []
    assert path.exists()
    assert run_json(capsys, "--older-than", "47h", "--remove-leftovers")[1]["leftovers"]
    assert not path.exists()
