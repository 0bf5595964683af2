"""What the compose file and the Dockerfile say."""

import json
import re

import pytest

from tests.deployment.composed import ROOT, compose


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return json.loads(compose("--format", "json").stdout)["services"]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str, str]]:
    """Each instruction of the Dockerfile: its stage, its name, the rest of it."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found, stage = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" ")[2]
        if name:
            found.append((stage, name, rest.strip()))
    return found


@pytest.fixture(scope="module")
def copied(instructions: list[tuple[str, str, str]]) -> dict[str, set[str]]:
    """What each stage takes from the build context."""
    stages: dict[str, set[str]] = {}
    for stage, name, rest in instructions:
        if name == "COPY" and "--from=" not in rest:
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            stages.setdefault(stage, set()).update(sources)
    return stages
