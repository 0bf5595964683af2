"""Search the lifecycle's model with spin."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "docs" / "model"


@dataclass(frozen=True, slots=True)
class Search:
    """What came of one search."""

    states: int
    broken: str | None
    """The promise that some run breaks."""
    is_complete: bool
    """Every order of steps was tried, and none breaks a promise."""


def is_missing() -> bool:
    """Tell whether spin, a C compiler or the C library's headers are not installed."""
    if shutil.which("spin") is None or shutil.which("gcc") is None:
        return True
    program = ["gcc", "-E", "-include", "stdio.h", "-x", "c", "/dev/null"]
    return subprocess.run(program, capture_output=True).returncode != 0


def search(folder: Path, *definitions: str, optimize: bool = False, depth: int = 100_000) -> Search:
    """Compile the model with these definitions in a folder, and search it to this depth.

    Raises:
        RuntimeError: spin, the compiler or the search did not run to an end.

    """
    is_live = "LIVENESS" in definitions
    defined = [f"-D{definition}" for definition in definitions]
    # Three words of bookkeeping: fairness is counted for more processes than the default's.
    kind = ["-DNFAIR=3"] if is_live else ["-DSAFETY"]
    _run(folder, "spin", "-a", *defined, str(MODEL / "lifecycle.pml"))
    _run(folder, "gcc", "-O1" if optimize else "-O0", "-w", "-DCOLLAPSE", *kind, "-opan", "pan.c")
    options = ["-a", "-f"] if is_live else []
    return read(_run(folder, "./pan", f"-m{depth}", "-w20", *options))


def read(report: str) -> Search:
    """Read the searching program's report.

    Raises:
        RuntimeError: it ends without a result.

    """
    counted = [line for line in report.splitlines() if " states, stored" in line]
    if not counted:
        raise RuntimeError(report)
    broken = None
    if "assertion violated " in report:
        broken = report.split("assertion violated ")[1].split(" (at depth")[0]
    elif "acceptance cycle (at depth" in report:
        broken = "nothing_lost"
    return Search(
        states=int(counted[0].split()[0]),
        broken=broken,
        is_complete=(
            "errors: 0\n" in report
            and "Search not completed" not in report
            and "max search depth too small" not in report
        ),
    )


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout
