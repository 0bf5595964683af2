"""Finds a Recipe by the name of its entry point, and says everything that is wrong with it.

A message in here never quotes what came out of a recipe's data: sample IDs are personal data and
may appear nowhere. That includes the messages of exceptions that a recipe raises, since a
``KeyError`` names the very key; of those, only the type and the place are reported.
"""

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePath
from typing import TypeVar

import torch

from lethe.recipe import ENTRY_POINT_GROUP, Recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in a recipe or its checkpoint: a stable code, and what to do about it."""

    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Return the problem as a JSON object."""
        return asdict(self)


class UnknownRecipe(Exception):
    """No usable recipe of this name is installed here; ``problem`` says why."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the problem beside the message."""
        super().__init__(message)
        self.problem = Problem(code, message)


class BrokenRecipe(UnknownRecipe):
    """The name is installed more than once, cannot be imported, or is not a Recipe."""


def installed_recipes() -> list[str]:
    """Return the names of all installed recipes, each once, sorted."""
    return sorted(entry_points(group=ENTRY_POINT_GROUP).names)


def find_recipe(name: str) -> Recipe:
    """Return the recipe that is installed under the name.

    Raises:
        UnknownRecipe: there is none; the message lists those that there are.
        BrokenRecipe: there are several, or the one cannot be used.

    """
    found = list(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not found:
        raise UnknownRecipe(
            "recipe.unknown",
            f"no recipe named {name[:100]!r} is installed in this worker; installed: "
            + (", ".join(installed_recipes()) or "none"),
        )
    if len(found) > 1:
        packages = ", ".join(sorted(entry.dist.name for entry in found if entry.dist))
        raise BrokenRecipe(
            "recipe.ambiguous",
            f"{len(found)} packages install a recipe {name!r} ({packages}); uninstall all but one",
        )
    return _load(found[0])


def _load(entry: EntryPoint) -> Recipe:
    package = entry.module.partition(".")[0]
    loaded = attempt(package, "recipe.import", f"importing {entry.value}", entry.load)
    if isinstance(loaded, type) and issubclass(loaded, Recipe):
        loaded = attempt(package, "recipe.construct", f"{entry.value}()", loaded)
    if isinstance(loaded, Problem):
        raise BrokenRecipe(loaded.code, loaded.message)
    if not isinstance(loaded, Recipe):
        raise BrokenRecipe(
            "recipe.type", f"{entry.value} is neither a subclass nor an instance of Recipe"
        )
    return loaded


def attempt(package: str, code: str, doing: str, call: Callable[[], T]) -> T | Problem:
    """Return what the user's code returns, or the Problem that it raised.

    The exception is dropped here, message, chain and all; see the head of this file.
    """
    try:
        return call()
    # A recipe that calls sys.exit() must not take the worker with it.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return Problem(code, f"{doing} raised {type(error).__name__}{_place(package, error)}")


def _place(package: str, error: BaseException) -> str:
    """Return the innermost line of the user's package on the way to the exception."""
    inner = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] == package:
            folders = (frame.f_globals.get("__package__") or "").split(".")
            file = PurePath(frame.f_code.co_filename).name
            inner = f" at {'/'.join([*filter(None, folders), file])}:{line}"
    return inner


def data_fingerprint(sample_digests: Sequence[bytes]) -> str:
    """Return the digest of a training set's records and their order, ``sha256:`` and hexadecimal.

    It covers the keyed digests of the sample IDs and their count, not the records' content: it
    tells that a recipe still numbers the same samples in the same way.

    Raises:
        ValueError: a digest is not 32 bytes long, so that two lists could run together.

    """
    whole = hashlib.sha256(b"lethe data fingerprint\0")
    whole.update(len(sample_digests).to_bytes(8, "big"))
    for digest in sample_digests:
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError("a sample digest has 32 bytes")
        whole.update(digest)
    return "sha256:" + whole.hexdigest()


def recipe_fingerprint(recipe: Recipe) -> str:
    """Return the digest of a recipe's code, ``sha256:`` and hexadecimal.

    It covers the class's name, the versions of PyTorch and of the distributions that install
    recipes from its top-level package, and every Python file of that package. What the recipe
    takes from other packages, or reads while it runs, is not in it.

    Raises:
        OSError: a file of the package cannot be read.

    """
    return _code_fingerprint(type(recipe))


# Once in a process, like the import itself: files that are replaced later are not what runs here.
@cache
def _code_fingerprint(kind: type[Recipe]) -> str:
    package = kind.__module__.partition(".")[0]
    whole = hashlib.sha256(b"lethe recipe fingerprint\0")
    for part in (
        f"{kind.__module__}:{kind.__qualname__}".encode(),
        torch.__version__.encode(),
        *_distributions(package),
        b"",  # ends the distributions: none is empty
        *_sources(package, kind),
    ):
        whole.update(len(part).to_bytes(8, "big"))  # or parts could run together
        whole.update(part)
    return "sha256:" + whole.hexdigest()


def _distributions(package: str) -> list[bytes]:
    return sorted(
        {
            f"{entry.dist.name}=={entry.dist.version}".encode()
            for entry in entry_points(group=ENTRY_POINT_GROUP)
            if entry.dist and entry.module.partition(".")[0] == package
        }
    )


def _sources(package: str, kind: type[Recipe]) -> Iterator[bytes]:
    # Names and contents of the package's files; of a single module, the contents of its one.
    top = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    found = sorted(
        (path.relative_to(folder).as_posix(), path)
        for folder in folders
        for path in folder.rglob("*.py")
    )
    for name, path in found:
        yield name.encode()
        yield path.read_bytes()
    if found:
        return
    file = getattr(top, "__file__", None)
    if file is not None:
        yield Path(file).read_bytes()
        return
    try:
        yield inspect.getsource(kind).encode()
    except (OSError, TypeError):
        return  # typed in at a prompt, for one; its name must do


@dataclass(slots=True)
class Findings:
    """The problems found so far; calls into the user's code go through ``run``."""

    package: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, message: str) -> None:
        """Note a problem, once."""
        if (problem := Problem(code, message)) not in self.problems:
            self.problems.append(problem)

    def run(self, code: str, doing: str, call: Callable[[], T]) -> T | Problem:
        """Return what the user's code returns, or note what it raised."""
        result = attempt(self.package, code, doing, call)
        if isinstance(result, Problem):
            self.add(result.code, result.message)
        return result
