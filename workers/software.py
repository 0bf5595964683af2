"""What computes: the versions of everything that decides about the bits of an outcome."""

import hashlib
import platform
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

PACKAGES = ("app", "lethe", "workers")


@cache
def software() -> dict[str, str]:
    """Return the versions of Lethe, of its installed code, of Python, PyTorch and NumPy.

    ``code`` is the digest of every Python file of Lethe's packages, names and bytes, so that a
    patched installation has another one than the release that it says it is. What a recipe is made
    of is in its own fingerprint.

    Raises:
        OSError: a file of the installation cannot be read.

    """
    return {
        "lethe": version("lethe"),
        "code": _code_digest(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _code_digest() -> str:
    whole = hashlib.sha256(b"lethe code\0")
    for part in _sources():
        whole.update(len(part).to_bytes(8, "big"))  # or parts could run together
        whole.update(part)
    return "sha256:" + whole.hexdigest()


def _sources() -> Iterator[bytes]:
    for name in PACKAGES:
        folder = Path(str(import_module(name).__file__)).parent
        found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py"))
        for relative, path in found:
            yield f"{name}/{relative}".encode()
            yield path.read_bytes()
