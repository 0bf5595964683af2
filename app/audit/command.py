"""``lethe log``: write the whole log into a file; restart it after entries were lost."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.audit import export, heads, witness_file
from app.audit.restart import restart
from app.db import transaction
from app.errors import NotSigning, RolledBack
from app.settings import settings
from lethe.verify.note import peek


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns 0, 1 if it is refused, or 2 if the database does not answer."""
    parser = argparse.ArgumentParser(prog="lethe log", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export", help="write every entry and every signed head")
    command.add_argument("--out", required=True, help="a file to make; - for standard output")
    command.set_defaults(run=_export)
    command = commands.add_parser(
        "restart", help="give the log a new name after it lost entries that were signed"
    )
    command.add_argument(
        "--although-consistent",
        action="store_true",
        help="also when this service sees no contradiction, because a witness does",
    )
    command.set_defaults(run=_restart)
    asked = parser.parse_args(arguments)
    logs.set_up()
    try:
        return int(asked.run(asked))
    except SQLAlchemyError as error:
        sys.stderr.write(f"The database does not answer: {type(error).__name__}\n")
        return 2
    except NotSigning as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    except (OSError, witness_file.Damaged) as error:
        sys.stderr.write(f"A file cannot be read or written: {error}\n")
        return 2


def _export(asked: argparse.Namespace) -> int:
    lines = export.begin()
    if asked.out == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return 0
    path = Path(asked.out)
    try:
        with path.open("xb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        sys.stderr.write(f"{path} exists; name another file\n")
        return 1
    return 0


def _restart(asked: argparse.Namespace) -> int:
    if not asked.although_consistent and not _is_rolled_back():
        sys.stderr.write("The log contradicts nothing that it signed; there is no need.\n")
        return 1
    path = settings().witness_file
    with transaction() as session:
        renamed = restart(session, _remembered_size(path))
    kept = _put_away(path, renamed.former)
    sys.stdout.write(f"The log is {renamed.name} from now on; it was {renamed.former}.\n")
    if kept is not None:
        sys.stdout.write(f"Keep {kept}: it has what was signed under that name.\n")
    sys.stdout.write("Tell those who have tree heads or receipts of it what was lost.\n")
    return 0


def _is_rolled_back() -> bool:
    try:
        with transaction() as session:
            heads.refuse_contradictions(session)
    except RolledBack:
        return True
    return False


def _remembered_size(path: Path | None) -> int:
    note = None if path is None else witness_file.last_note(path)
    return 0 if note is None else peek(note).size


def _put_away(path: Path | None, origin: str) -> Path | None:
    if path is None or not path.exists():
        return None
    kept = path.with_name(f"{path.name}.{origin.rpartition('/')[2]}")
    path.rename(kept)
    return kept


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
