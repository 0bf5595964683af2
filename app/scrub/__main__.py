"""`python -m app.scrub`: find damaged and forgotten files. Exit 0 clean, 1 damage, 2 not run."""

import argparse
import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from app.artifacts import ArtifactStore
from app.db import is_migrated
from app.scrub.errors import CannotScrub
from app.scrub.report import Report, as_json, lines
from app.scrub.service import scrub
from app.settings import settings

CLEAN, DAMAGED, NOT_RUN = 0, 1, 2
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
# An upload waits this long to be registered, at the least; and no clocks differ by so much.
SHORTEST_AGE = timedelta(hours=1)


def age(words: str) -> timedelta:
    """Read an age such as 90m, 12h or 1d."""
    matched = re.fullmatch(r"(\d{1,6})([mhd])", words)
    if matched is None:
        raise argparse.ArgumentTypeError("give 1h or more, with its unit: 90m, 12h, 1d")
    read = timedelta(**{UNITS[matched[2]]: int(matched[1])})
    if read < SHORTEST_AGE:
        raise argparse.ArgumentTypeError("give 1h or more: younger files may be work under way")
    return read


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m app.scrub",
        description="Check all artifacts and the audit log; the service may run meanwhile.",
        epilog="Exit status: 0 nothing damaged, 1 damage found, 2 it could not be checked.",
    )
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")
    parser.add_argument(
        "--remove-leftovers",
        action="store_true",
        help="remove half-written files, and files that nothing refers to or that were purged",
    )
    parser.add_argument(
        "--older-than",
        type=age,
        default=timedelta(days=1),
        metavar="AGE",
        help="leftovers are at least this old: 90m, 12h, 1d (the default)",
    )
    parser.add_argument("--verbose", action="store_true", help="name each file while it is read")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run the scrub, say what it found, and return the exit status."""
    options = parse(arguments)
    try:
        report = _scrub(options)
    except CannotScrub as error:
        problem = str(error)
    except ValidationError as error:
        problem = f"The settings are not complete: {error}"
    except OSError as error:
        problem = f"The store cannot be read: {error.strerror}."
    except SQLAlchemyError as error:
        problem = f"The database does not answer ({type(error).__name__}); nothing is known."
    except KeyboardInterrupt:
        problem = "Interrupted; nothing is known."
    else:
        _say(report, as_json_object=options.json)
        return CLEAN if report.is_clean else DAMAGED
    _write(sys.stderr.write, f"could not scrub: {problem}")
    if options.json:
        _write(sys.stdout.write, json.dumps({"could_not_run": problem}))
    return NOT_RUN


def _scrub(options: argparse.Namespace) -> Report:
    if not is_migrated():
        raise CannotScrub(
            "The database has the tables of another version: run this program of the version that "
            "serves, or migrate first (alembic upgrade head)."
        )
    # Absolute, because whoever reads the report may stand in another folder.
    store = ArtifactStore(Path(settings().artifacts_folder).absolute())

    def tell(words: str) -> None:
        if options.verbose:
            _write(sys.stderr.write, f"checking {words}")

    return scrub(store, options.older_than, remove_leftovers=options.remove_leftovers, tell=tell)


def _say(report: Report, *, as_json_object: bool) -> None:
    said = json.dumps(as_json(report)) if as_json_object else "\n".join(lines(report))
    _write(sys.stdout.write, said)


def _write(write: Callable[[str], object], words: str) -> None:
    write(words + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
