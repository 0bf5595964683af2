"""Lethe's commands as people run them: in processes of their own, from their own shells."""

import os
import subprocess
import sys
from pathlib import Path


def lethe(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of an auditor, who has none of the service's settings."""
    return _run("lethe", *arguments)


def operate(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator on the service's folder, while it runs."""
    return _run("embedded", "lethe", "--folder", folder, *arguments)


def _run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, env=outside, capture_output=True, text=True)
