"""`lethe rerun JOB`: repeat a published job. Exit 0 reproduced, 1 differs, 2 not possible."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from app.db import is_migrated, transaction
from app.jobs import records

EXIT_STATUS = {"reproduced": 0, "differs": 1, "not_possible": 2}
NOT_POSSIBLE = "not_possible"
STANDARD_ERROR = 2
# Facts of the audit entry; what is not known is null.
FACTS = ("outcome", "reasons", "expected", "digest", "distance", "tolerance")


class CannotRepeat(Exception):
    """Nothing was found out; the message says why."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="lethe rerun",
        description="Repeat a published job from its recorded inputs in a process of its own, "
        "compare what comes out, and put the result into the audit log.",
        epilog="Needs a worker's settings and recipes, and as long as the job did. "
        "Exit status: 0 reproduced, 1 differs, 2 not possible.",
    )
    parser.add_argument("job", type=UUID, help="id of the job")
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Repeat a job, report it, say what came of it, and return the exit status."""
    options = parse(arguments)
    try:
        result = _rerun(options.job)
    except CannotRepeat as error:
        problem = str(error)
    except ValidationError as error:
        problem = f"The settings are not complete: {error}"
    except SQLAlchemyError as error:
        problem = f"The database does not answer ({type(error).__name__}); nothing was reported."
    except KeyboardInterrupt:
        problem = "Interrupted; nothing was reported."
    else:
        _write(json.dumps(result) if options.json else "\n".join(lines(options.job, result)))
        return EXIT_STATUS[result["outcome"]]
    sys.stderr.write(f"could not repeat the job: {problem}\n")
    if options.json:
        _write(json.dumps({"could_not_run": problem}))
    return EXIT_STATUS[NOT_POSSIBLE]


def lines(job_id: UUID, result: Mapping[str, Any]) -> Iterator[str]:
    """Say what came of it, one thing a line."""
    yield f"job {job_id}: {result['outcome'].replace('_', ' ')}"
    yield from (f"  {reason}" for reason in result["reasons"])
    if result["expected"] is not None:
        yield f"  published  {result['expected']}"
    if result["digest"] is not None:
        yield f"  repeated   {result['digest']}"
    if result["distance"] is not None:
        yield f"  distance   {result['distance']:g} (tolerance {result['tolerance']:g})"
    for name, found in result["differences"].items():
        yield f"  other {name}: {found['recorded']} then, {found['here']} here"


def _rerun(job_id: UUID) -> dict[str, Any]:
    if not is_migrated():
        raise CannotRepeat("The database has the tables of another version; migrate first.")
    result = _in_clean_process(job_id)
    if result.pop("is_published"):
        facts = {name: result[name] for name in FACTS}
        with transaction() as session:
            records.report(
                session,
                job_id,
                {**facts, "software": result["software"], "differences": result["differences"]},
            )
    return result


def _in_clean_process(job_id: UUID) -> dict[str, Any]:
    """Return what a fresh interpreter makes of the job."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "workers.rerun_job", str(job_id), str(writer)]
    with os.fdopen(reader) as told:
        try:
            child = subprocess.Popen(  # noqa: S603
                command, pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR
            )
        finally:
            os.close(writer)
        with child:
            said = told.read()
    try:
        result: dict[str, Any] = json.loads(said)
    except ValueError:
        raise CannotRepeat(
            f"The process that repeated it ended before it was done (status {child.returncode}): "
            "was it killed, or out of memory?"
        ) from None
    return result


def _write(words: str) -> None:
    sys.stdout.write(words + "\n")
