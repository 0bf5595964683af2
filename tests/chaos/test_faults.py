"""Each planted fault still finds the function that it breaks, in the processes that are to have it.

That the checker notices them takes a run each: ``make chaos FAULT=no_fence``.
"""

import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from app import lifecycle
from app.jobs import publication
from tests.chaos.faults.directed import OPENINGS
from tests.chaos.faults.planted import FAULTS, replace
from tests.chaos.fleet import FAULTS_FOLDER
from workers.heartbeat import Heartbeat

LOOK = "import app.deletions.planner as planner; print(planner.plan_model.__module__)"


def test_each_fault_has_a_run_that_opens_its_window() -> None:
    assert OPENINGS.keys() == FAULTS.keys()


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_replaces_a_function_that_the_product_has(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a fault changes beside the module that it is given is put back afterwards.
    monkeypatch.setattr(publication, "lifecycle", lifecycle)
    monkeypatch.setattr(Heartbeat, "_beat", Heartbeat._beat)  # noqa: SLF001  # as the fault does
    name, plant = FAULTS[fault]
    module = importlib.import_module(name)
    before = {**vars(module), **vars(Heartbeat)}
    broken = SimpleNamespace(**vars(module))
    plant(broken)  # type: ignore[arg-type]  # a copy, so that other tests have the module
    after = {**vars(broken), **vars(Heartbeat)}
    assert sum(after[name] is not before[name] for name in before) == 1


def test_a_function_that_is_gone_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        replace(SimpleNamespace(), "held_by", None)


@pytest.mark.parametrize(
    ("asked", "module"),
    [({}, "app.deletions.planner"), ({"LETHE_CHAOS_FAULT": "nudge_before_commit"}, "planted")],
)
def test_only_processes_that_are_asked_to_are_broken(asked: dict[str, str], module: str) -> None:
    environment = {**os.environ, **asked, "PYTHONPATH": str(FAULTS_FOLDER)}
    found = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == module
