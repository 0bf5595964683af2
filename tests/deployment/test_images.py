"""The images, checked without an engine: what is in them, and what they do without."""

import json
import subprocess
import sys
import tomllib
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployment.composed import BIN, PROGRAMS, ROOT

# In the order of the images: what the API's image has not, neither as packages nor as source.
ABSENT = ("torch", "numpy", "safetensors", "sklearn", "scipy", "embedded", "workers.unlearning")


def in_context(path: str) -> bool:
    """Docker's rule: the last pattern that names the path, or a folder above it, decides."""
    folders = path.split("/")
    above = ["/".join(folders[: depth + 1]) for depth in range(len(folders))]
    included = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        exception, pattern = line.startswith("!"), line.removeprefix("!")
        anywhere, name = pattern.startswith("**/"), pattern.removeprefix("**/")
        if not line or line.startswith("#"):
            continue
        if any(
            fnmatchcase(each.rpartition("/")[2] if anywhere else each, name)
            and (anywhere or each.count("/") == name.count("/"))
            for each in above
        ):
            included = exception
    return included


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_runs_the_command_of_the_embedded_service_by_default(
    name: str, instructions: list[tuple[str, str, str]]
) -> None:
    (command,) = [rest for stage, kind, rest in instructions if (stage, kind) == (name, "CMD")]
    filled = [part.format(host="0.0.0.0", port=8000) for part in PROGRAMS[name].command]  # noqa: S104
    assert json.loads(command) == filled


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    result = subprocess.run(
        [BIN / "hadolint", "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_every_image_runs_as_a_user_that_is_not_root(
    instructions: list[tuple[str, str, str]],
) -> None:
    users: dict[str, str] = {}
    for stage, name, rest in instructions:
        if name == "FROM":
            users[stage] = users.get(rest.split()[0], "0")
        if name == "USER":
            users[stage] = rest
    images = ("api", "worker", "worker-examples")
    assert {users[image] for image in images} == {"10001:10001"}


def test_the_dockerfile_copies_only_what_git_has_and_the_build_context_holds(
    copied: dict[str, set[str]],
) -> None:
    tracked = subprocess.run(
        # A checkout of another account, as CI has it.
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    sources = set().union(*copied.values())
    assert sources >= {"app", "workers", "lethe", "migrations", "alembic.ini"}
    for source in sources:
        files = [path for path in tracked if path == source or path.startswith(source + "/")]
        assert files, f"{source} is not in git"
        assert all(map(in_context, files)), f"{source} is not in the build context"


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", ".venv/bin/python", ".lethe/secrets.json", ".lethe/data/postgres/x"),
        *(".env", ".env.production", "app/.env", "id_key.pem", "secrets/api_key", "tests/x.py"),
        *("artifacts/sha256/ab/abc", "examples/weights.safetensors", "app/__pycache__/x.pyc"),
    ],
)
def test_the_build_context_holds_no_history_secrets_or_data(path: str) -> None:
    assert not in_context(path)


def test_what_the_api_image_installs_holds_no_torch() -> None:
    # Where the Dockerfile reads it; what these require in turn, as it is installed here.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + project["optional-dependencies"]["server"]
    waiting = [(Requirement(line), "") for line in listed]
    installed: set[tuple[str, str]] = set()
    while waiting:
        requirement, wanted_by = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": wanted_by}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {each for at, each in installed if at == name}:
            installed.add((name, extra))
            with suppress(PackageNotFoundError):  # reported below, if it is one of those
                waiting += [(Requirement(line), extra) for line in requires(name) or []]
    names = {name for name, _ in installed}
    assert names >= {"fastapi", "celery", "redis", "psycopg-binary", "starlette"}
    assert names.isdisjoint({"torch", "numpy", "safetensors", "scikit-learn", "scipy"})


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in {absent!r}):
            raise ModuleNotFoundError(f"not in this image: {{name}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize(
    "program",
    [
        "from app.main import create_app; assert create_app().routes",
        "from alembic.config import main; main(['upgrade', 'head'])",
        "from workers.celery_app import app; app.loader.import_default_modules();"
        "assert {'lethe.plan', 'lethe.sweep'} <= set(app.tasks)",
    ],
    ids=["api", "migrations", "scheduler"],
)
def test_a_program_of_the_api_image_starts_without_torch(
    program: str, environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(absent=ABSENT) + program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_api_image_has_neither_torch_nor_the_embedded_service(
    instructions: list[tuple[str, str, str]], copied: dict[str, set[str]]
) -> None:
    ancestors = {stage: rest.split()[0] for stage, name, rest in instructions if name == "FROM"}
    stages, waiting = set(), ["api", "api-packages"]
    while waiting:
        stage = waiting.pop()
        stages.add(stage)
        waiting += [ancestors[stage]] if stage in ancestors else []
    ran = [rest for stage, name, rest in instructions if stage in stages and name == "RUN"]
    assert ran
    assert not any("worker" in command or "torch" in command for command in ran)
    assert "embedded" not in set().union(*(copied.get(stage, set()) for stage in stages))
