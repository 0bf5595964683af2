"""A recipe's fingerprint changes with its code and with what runs it, and with nothing else."""

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType

import pytest
import torch

from workers.recipes import recipe_fingerprint

NAME = "fingerprinted"
CODE = """
from lethe.recipe import Recipe
class One(Recipe):
    build_model = training_data = sample_ids = holdout_data = losses = None
class Two(One):
    pass
"""
PACKAGE = {f"{NAME}/__init__.py": CODE, f"{NAME}/sub/loss.py": "A = 1\n"}
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: {}\n",
    "entry_points.txt": f"[lethe.recipes]\nfingerprinted = {NAME}:One\n",
}
Write = Callable[[Mapping[str, str]], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Replace what can be imported from the folder that this process imports from first."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path / "here")

    def make(files: Mapping[str, str]) -> None:
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        for name, content in files.items():
            path = tmp_path / "here" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return make


def fingerprint(class_name: str = "One") -> str:
    """Import the recipe as another process would, and return its fingerprint."""
    invalidate_caches()
    module = import_module(NAME)
    try:
        return recipe_fingerprint(getattr(module, class_name)())
    finally:
        del sys.modules[NAME]


def test_the_same_code_has_the_same_fingerprint_anywhere(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(PACKAGE)
    here = fingerprint()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", here)
    write({**PACKAGE, f"{NAME}/notes.txt": "no code", "beside.py": "B = 2\n"})
    assert fingerprint() == here
    rglob = Path.rglob
    for backwards in (False, True):  # a folder is listed in no order that could be relied on
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rglob", lambda *args, r=backwards: sorted(rglob(*args), reverse=r))
            assert fingerprint() == here
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.syspath_prepend(tmp_path / "there")
    assert fingerprint() == here


def test_every_change_of_a_packages_code_changes_the_fingerprint(write: Write) -> None:
    first, second = PACKAGE
    changed = [
        PACKAGE,
        {**PACKAGE, second: "A = 2\n"},
        {**PACKAGE, first: CODE + "# a remark\n"},
        {**PACKAGE, f"{NAME}/sub/more.py": ""},
        {first: CODE, f"{NAME}/sub/lass.py": "A = 1\n"},
        {first: CODE, f"{NAME}/loss.py": "A = 1\n"},
        {first: CODE},
        # Run together, these two would be the same.
        {**PACKAGE, first: CODE + "#", f"{NAME}/a.py": "#"},
        {**PACKAGE, first: CODE + "#a.py#"},
    ]
    found = []
    for files in changed:
        write(files)
        found.append(fingerprint())
    assert len(set(found)) == len(changed)
    write(PACKAGE)
    assert fingerprint("Two") not in found
    assert fingerprint() == found[0]


def test_a_recipe_in_a_single_module_is_fingerprinted_by_its_file(write: Write) -> None:
    write({f"{NAME}.py": CODE, "beside.py": "B = 1\n"})
    here = fingerprint()
    write({f"{NAME}.py": CODE, "beside.py": "B = 2\n"})
    assert fingerprint() == here
    write({f"{NAME}.py": CODE + "# a remark\n", "beside.py": "B = 1\n"})
    assert fingerprint() != here


def test_what_runs_and_what_installs_the_recipe_changes_the_fingerprint(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for version in (None, "1.0", "1.1"):
        installed = {} if version is None else METADATA
        write(
            PACKAGE
            | {f"theirs-1.dist-info/{k}": text.format(version) for k, text in installed.items()}
        )
        found.append(fingerprint())
    assert len(set(found)) == 3
    monkeypatch.setattr(torch, "__version__", "0.0.1")
    assert fingerprint() not in found


def test_files_replaced_under_a_running_worker_do_not_change_what_it_runs(write: Write) -> None:
    write(PACKAGE)
    invalidate_caches()
    recipe = import_module(NAME).One()
    try:
        before = recipe_fingerprint(recipe)
        write({**PACKAGE, f"{NAME}/sub/loss.py": "A = 2\n"})
        assert recipe_fingerprint(recipe) == before
    finally:
        del sys.modules[NAME]
    assert fingerprint() != before


def test_a_recipe_without_a_file_is_fingerprinted_by_its_name() -> None:
    module = ModuleType("typed_in")
    exec(CODE, module.__dict__)  # noqa: S102  # what a prompt does
    found = {recipe_fingerprint(module.One()), recipe_fingerprint(module.Two())}
    assert len(found) == 2
