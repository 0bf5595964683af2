"""`python -m tests.chaos --kills 500 --seed 7`: kill the service again and again, then check it."""

import argparse
import json
import sys
import time
from pathlib import Path

from embedded.servers import remove, temporary_place
from tests.chaos.faults.directed import OPENINGS
from tests.chaos.run import Options, run

SHOWN = 40


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs at least (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the schedule (%(default)s)")
    parser.add_argument(
        "--fault", choices=sorted(OPENINGS), help="break the product; the run has to find it"
    )
    parser.add_argument(
        "--folder", type=Path, help="a new one, which stays; otherwise it is removed if all is well"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run, print a summary, and one JSON object as the last line; returns the exit status."""
    chosen = parse(arguments)
    folder = (chosen.folder or temporary_place() / f"lethe-chaos-{time.time_ns()}").resolve()
    report = run(Options(folder, chosen.kills, chosen.seed, chosen.fault), say)
    say("kills: " + ", ".join(f"{name} {n}" for name, n in sorted(report.fired.items())))
    for violation in report.violations[:SHOWN]:
        say(f"{violation.kind}: {violation.what}")
    if chosen.fault is not None and not report.violations:
        say(f"{chosen.fault} was planted and not found")
    if report.unreached:
        say(f"nothing came to {sorted(report.unreached)}")
    if report.passed and chosen.folder is None:
        remove(folder / "state")
        remove(folder)
    else:
        say(f"everything is left in {folder}")
    say(json.dumps(report.counts))
    return 0 if report.passed else 1


def say(what: str) -> None:
    """Tell whoever watches."""
    print(what, flush=True)  # noqa: T201  # a program that talks to a person


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
