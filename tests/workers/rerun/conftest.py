"""Recipes that this process and others find, and jobs of theirs."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from lethe.policy import Policy
from tests.workers.installed_recipes import install
from tests.workers.rerun import recipes
from tests.workers.rerun.repeating import FORGOTTEN, LENIENT, make_references, publish, serve


@pytest.fixture(autouse=True)
def packages(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the recipes are installed that this process and others find."""
    folder = tmp_path / "packages"
    place = recipes.__name__
    install(folder, {name.lower(): f"{place}:{name}" for name in ("Plain", "Unseeded")})
    monkeypatch.syspath_prepend(folder)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return folder


@pytest.fixture
def judged(packages: Path, job_for: Callable[..., UUID]) -> UUID:
    """A published job whose method and verdict were given numbers about single samples."""
    serve("plain", Policy(ladder=("nabla_tau",), **LENIENT))
    make_references()
    return publish(job_for(*FORGOTTEN))
