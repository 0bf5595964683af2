"""The fences between the packages, each tried from the outside."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import keys, moves
from app.keys import Purpose
from embedded.commands import LOG_KEY, SCHEDULER, WEIGHTS_KEY, WORKER, Program
from embedded.supervisor import command_line

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "safetensors", "sklearn", "workers", "embedded")


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )


def sources(*packages: str) -> list[Path]:
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    assert found
    return found


def test_the_api_process_loads_neither_torch_nor_the_workers(environment: dict[str, str]) -> None:
    code = (
        "import sys; from app.main import create_app; create_app().openapi();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python(code, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_scheduler_process_loads_no_torch(environment: dict[str, str]) -> None:
    code = (
        "import sys, workers.tasks;"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules])"
    )
    done = python(code, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_api_starts_where_torch_is_not_installed(environment: dict[str, str]) -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}));"  # None makes imports fail
        "from app.main import create_app; create_app(); print('started')"
    )
    done = python(code, environment)
    assert done.stdout.strip() == "started", done.stderr


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_settings_alone_read_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in sources("app", "workers", "lethe")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]
    assert readers == []


def test_the_lifecycle_alone_writes_a_status() -> None:
    tables = [table.__name__ for table in moves.MOVES]
    writers = []
    for path in sources("app", "workers"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assigned = any(isinstance(t, ast.Attribute) and t.attr == "status" for t in targets)
            called = isinstance(node, ast.Call)
            made = called and getattr(node.func, "id", "") in tables
            updated = called and getattr(node.func, "attr", "") == "values"
            named = called and any(k.arg == "status" for k in node.keywords)
            if assigned or ((made or updated) and named):
                writers.append(path.relative_to(ROOT).as_posix())
    assert set(writers) == {"app/lifecycle.py"}


@pytest.mark.parametrize("word", ["pickle", "dill", "joblib", "shelve", "marshal"])
def test_nothing_is_unpickled(word: str) -> None:
    users = [
        path
        for path in sources("app", "workers", "lethe", "embedded")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(word in a.name for a in node.names))
        or (isinstance(node, ast.ImportFrom) and word in (node.module or ""))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"))
    ]
    assert users == []


@pytest.mark.parametrize("missing", ["LETHE_ID_KEY", "LETHE_LOG_KEY", "LETHE_DATABASE_URL"])
def test_the_api_does_not_start_without_what_it_needs(
    environment: dict[str, str], missing: str
) -> None:
    without = {key: value for key, value in environment.items() if key != missing}
    done = python("from app.main import create_app; create_app()", without)
    assert done.returncode != 0
    assert missing in done.stderr or missing.removeprefix("LETHE_").lower() in done.stderr
    secret = environment["LETHE_API_KEY"]
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"LETHE_API_KEY_DIGEST": "sha256:" + "d" * 64}, "both set; take out the first"),
        ({"LETHE_API_KEY": "", "LETHE_API_KEY_DIGEST": "d" * 64}, "openssl dgst -sha256 -r"),
    ],
)
def test_the_api_does_not_start_with_a_key_in_doubt_and_quotes_none(
    environment: dict[str, str], changed: dict[str, str], advice: str
) -> None:
    done = python("from app.main import create_app; create_app()", {**environment, **changed})
    assert done.returncode != 0
    assert advice in done.stderr
    told = done.stdout + done.stderr
    assert environment["LETHE_API_KEY"] not in told
    assert "d" * 64 not in told


@pytest.mark.parametrize(("program", "name"), [(SCHEDULER, LOG_KEY), (WORKER, WEIGHTS_KEY)])
def test_scheduler_and_worker_do_not_start_with_a_key_that_is_not_theirs(
    environment: dict[str, str], program: Program, name: str
) -> None:
    generated = keys.generate(Purpose.LOG if name == LOG_KEY else Purpose.WEIGHTS)
    done = subprocess.run(
        command_line(program, 0),
        env={**environment, name: generated},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"error: {name} was generated" in done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in generated.splitlines() if line in done.stdout + done.stderr] == []


@pytest.mark.parametrize(
    ("queues", "needed"),
    [(["control"], {LOG_KEY}), (["jobs"], {WEIGHTS_KEY}), (None, {LOG_KEY, WEIGHTS_KEY})],
)
def test_each_process_needs_the_keys_of_its_own_queues_alone(
    reread: Callable[[str, str], None], queues: list[str] | None, needed: set[str]
) -> None:
    from workers.celery_app import _refuse_to_start_without_keys

    present = {name: os.environ[name] for name in (LOG_KEY, WEIGHTS_KEY)}
    for name, value in present.items():
        reread(name, "")
        if name in needed:
            with pytest.raises(SystemExit, match=f"neither {name}"):
                _refuse_to_start_without_keys(options={"queues": queues})
        else:
            _refuse_to_start_without_keys(options={"queues": queues})
        reread(name, value)


def test_tests_and_docs_name_no_path_of_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    offenders = [
        name
        for name in listed
        if (ROOT / name).is_file()
        and os.fspath(ROOT) + "/" in (ROOT / name).read_text(errors="ignore")
    ]
    assert offenders == []
