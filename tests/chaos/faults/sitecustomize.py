"""Put first on a process's search path, it breaks the product in the one way that is asked for.

Python imports a module of this name at its start. Each fault replaces a function of one module
right after that module was imported, so that whoever takes the function from there gets the fault,
and no process imports what it would not have imported by itself.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import planted  # type: ignore[import-not-found]  # beside this file


class Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module as Python would, and changes it once it is there."""

    def __init__(self, name: str, plant: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._plant = plant
        self._loader: importlib.abc.Loader | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            raise ImportError(f"{name} is where the fault was to be, and is not there")
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec) if self._loader else None

    def exec_module(self, module: ModuleType) -> None:
        if self._loader is not None:
            self._loader.exec_module(module)
        self._plant(module)


fault = os.environ.get("LETHE_CHAOS_FAULT")
if fault is not None:
    sys.meta_path.insert(0, Planter(*planted.FAULTS[fault]))
