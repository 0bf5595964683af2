"""The command ``lethe``: what it prints, its exit status, and how little it needs."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from lethe.__main__ import main
from lethe.verify import Reason
from lethe.verify.keys import to_jwk, to_pem
from tests.lethe.verify.names import KEY, OTHER_KEY, TRUSTED, weights
from tests.lethe.verify.story import in_two_versions, simple

ROOT = Path(__file__).parents[3]
FOREIGN = ("fastapi", "sqlalchemy", "celery", "pydantic", "torch", "numpy", "app", "workers")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with what an auditor has."""
    story, receipt = simple()
    (tmp_path / "receipt.json").write_bytes(rfc8785.dumps(receipt))
    (tmp_path / "log.jsonl").write_bytes(story.export())
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [to_jwk(TRUSTED)]}))
    (tmp_path / "key.pem").write_text(to_pem(KEY.public_key()))
    (tmp_path / "other.pem").write_text(to_pem(OTHER_KEY.public_key()))
    (tmp_path / "pinned.txt").write_text(story.head(3))
    fork = story.head(3, root_hash=bytes(32))
    (tmp_path / "fork.txt").write_text(fork)
    feed = [{"checkpoint": story.head(size), "previous_size": 0} for size in (2, 4)]
    (tmp_path / "feed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in feed))
    for number in (1, 2):
        (tmp_path / f"weights-{number}").write_bytes(weights(number))
    return tmp_path


@pytest.fixture
def run(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the folder; return its status and what it printed."""
    monkeypatch.chdir(files)

    def call(*arguments: str) -> tuple[int, str]:
        status = main(list(arguments))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


@pytest.fixture
def install(files: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a package that brings commands: its module's code, and its entry points."""
    monkeypatch.syspath_prepend(files)

    def make(code: str, entry_points: str) -> None:
        (files / "brings_commands.py").write_text(code)
        info = files / "brings_commands-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-commands\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[lethe.commands]\n{entry_points}\n")

    return make


def test_a_receipt_that_holds_is_told_in_two_lists(run: Run) -> None:
    status, told = run("verify", "receipt.json", "--key", "keys.json")
    proven, not_proven = told.split("Not proven")
    assert status == 0
    assert "digits" in proven
    assert "--weights" in not_proven
    assert "--log" in not_proven


def test_everything_may_be_given_at_once(run: Run) -> None:
    status, told = run(
        *("verify", "receipt.json", "--weights", "weights-2", "--log", "log.jsonl"),
        *("--key", "other.pem", "--key", "key.pem", "--pin", "pinned.txt", "--pin", "feed.jsonl"),
    )
    assert status == 0
    assert "3 pinned heads" in told
    assert "--" not in told.split("Not proven")[1]


def test_a_log_that_holds_is_told_in_two_lists(run: Run) -> None:
    status, told = run("verify-log", "log.jsonl", "--key", "keys.json", "--pin", "feed.jsonl")
    assert status == 0
    assert "2 pinned heads" in told
    assert run("verify-log", "log.jsonl", "--key", "keys.json")[1].count("--pin") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["verify", "receipt.json", "--key", "other.pem"], Reason.UNKNOWN_KEY),
        (["verify", "log.jsonl", "--key", "key.pem"], Reason.UNREADABLE),
        (["verify", "keys.json", "--key", "key.pem"], Reason.NOT_CANONICAL),
        (
            ["verify", "receipt.json", "--key", "key.pem", "--weights", "weights-1"],
            Reason.WEIGHTS_DIFFER,
        ),
        (
            [
                "verify",
                "receipt.json",
                "--key",
                "key.pem",
                "--log",
                "log.jsonl",
                "--pin",
                "fork.txt",
            ],
            Reason.LOG_FORKED,
        ),
        (["verify-log", "log.jsonl", "--key", "key.pem", "--pin", "fork.txt"], Reason.LOG_FORKED),
        (["verify-log", "receipt.json", "--key", "key.pem"], Reason.LOG_TRUNCATED),
        (
            ["verify-log", "log.jsonl", "--key", "key.pem", "--pin", "key.pem"],
            Reason.HEAD_MALFORMED,
        ),
    ],
)
def test_what_does_not_hold_is_refused_with_its_reason(
    run: Run, arguments: list[str], reason: Reason
) -> None:
    status, told = run(*arguments)
    assert status == 1
    assert told.startswith(f"REFUSED {reason}: ")
    status, told = run(*arguments, "--json")
    assert status == 1
    assert json.loads(told)["reason"] == reason


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "nowhere.json", "--key", "key.pem"],
        ["verify", ".", "--key", "key.pem"],
        ["verify", "receipt.json", "--key", "nowhere.pem"],
        ["verify", "receipt.json", "--key", "weights-1"],
        ["verify", "receipt.json", "--key", "key.pem", "--weights", "nowhere"],
        ["verify", "receipt.json", "--key", "key.pem", "--log", "nowhere"],
        ["verify", "receipt.json", "--key", "key.pem", "--pin", "keys.json"],
    ],
)
def test_what_could_not_be_checked_is_not_called_refused(run: Run, arguments: list[str]) -> None:
    status, told = run(*arguments)
    assert status == 2
    assert told.startswith("NOT CHECKED: ")
    status, told = run(*arguments, "--json")
    assert status == 2
    assert json.loads(told)["result"] == "not-checked"


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "receipt.json"], ["verify-log"]])
def test_wrong_usage_has_a_status_of_its_own(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2


def test_programs_get_the_same_as_facts(run: Run, files: Path) -> None:
    (files / "two.json").write_bytes(rfc8785.dumps(in_two_versions()[1]))
    status, told = run("verify", "two.json", "--key", "keys.json", "--json")
    facts: dict[str, Any] = json.loads(told)
    assert status == 0
    assert facts["result"] == "proven"
    assert facts["request"]["status"] == "completed"
    assert [(each["name"], each["number"]) for each in facts["versions"]] == [
        ("digits", 2),
        ("digits", 3),
    ]
    assert [len(each["forgot"]) for each in facts["versions"]] == [1, 1]
    assert facts["log"] is None
    status, told = run("verify-log", "log.jsonl", "--key", "keys.json", "--json")
    assert (status, json.loads(told)["log"]["size"]) == (0, 6)


def test_commands_of_others_are_listed_and_run(run: Run, install: Callable[..., None]) -> None:
    install("def twice(arguments): return 2 * len(arguments)", "twice = brings_commands:twice")
    status, told = run("twice", "--key", "of its own")
    assert (status, told) == (4, "")
    assert "brings_commands" in sys.modules
    assert "twice" in run("--help")[1]
    del sys.modules["brings_commands"]


def test_a_command_is_loaded_only_when_it_is_named(run: Run, install: Callable[..., None]) -> None:
    install("raise RuntimeError('loaded')", "broken = brings_commands:main")
    status, told = run("unknown")
    assert status == 2
    assert "unknown" in told
    assert "broken" in told
    assert run("--help")[0] == 0
    assert run()[0] == 2


def test_a_command_whose_packages_are_missing_says_what_to_install(
    run: Run, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("import not_installed_here", "theirs = brings_commands:main\nours = workers.rerun:main")
    status, told = run("theirs")
    assert status == 2
    assert "not_installed_here" in told
    # Whatever other tests have imported already.
    for name in ("workers", "workers.rerun"):
        monkeypatch.setitem(sys.modules, name, None)
    status, told = run("ours")
    assert status == 2
    assert "lethe[worker]" in told


def test_checking_loads_nothing_of_the_service(files: Path) -> None:
    code = (
        "import sys; from lethe.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        f"print([name for name in {FOREIGN!r} if name in sys.modules], status)"
    )
    arguments = ["verify", "receipt.json", "--key", "key.pem", "--log", "log.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=files,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


def test_checking_works_where_nothing_of_the_service_is_installed(files: Path) -> None:
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({FOREIGN!r}));"  # imports fail
        "sys.argv[0] = 'lethe'; runpy.run_module('lethe', run_name='__main__')"
    )
    for arguments, status in (
        (["verify", "--help"], 0),
        (["verify", "receipt.json", "--key", "key.pem"], 0),
        (["verify", "receipt.json", "--key", "other.pem"], 1),
        (["verify", "receipt.json", "--key", "nowhere.pem"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=files,
            env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        assert done.stderr == ""


def test_the_reasons_that_the_page_explains_exist() -> None:
    page = (ROOT / "docs" / "verify-a-receipt.md").read_text()
    table = page.partition("| reason |")[2].partition("\n\n")[0]
    named = {word for word in re.findall(r"`([^`]+)`", table) if not word.startswith("…")}
    assert len(named) > 10
    assert named <= set(Reason)
