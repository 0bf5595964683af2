"""``lethe keys``: make a private key, list the published ones, retire one at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app.audit import published
from app.db import transaction
from app.errors import NotFound
from app.keys import Purpose, create, to_pem
from lethe.verify.keys import VerifyingKey, thumbprint
from lethe.verify.keys import to_pem as public_pem


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns 0, 1 if it is refused, or 2 if the database does not answer."""
    parser = argparse.ArgumentParser(prog="lethe keys", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("new", help="make a private key in a file of its own")
    command.add_argument("purpose", type=Purpose, choices=list(Purpose))
    command.add_argument("--out", type=Path, required=True, help="a file to make, for its owner")
    command.set_defaults(run=_new)
    command = commands.add_parser("list", help="list the published keys, oldest first")
    command.set_defaults(run=_list)
    command = commands.add_parser("retire", help="let a key sign nothing more, from now on")
    command.add_argument("key_id", metavar="KID")
    command.set_defaults(run=_retire)
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked))
    except SQLAlchemyError as error:
        sys.stderr.write(f"The database does not answer: {type(error).__name__}\n")
        return 2


def _new(asked: argparse.Namespace) -> int:
    private = create(asked.purpose)
    try:
        # Exclusive: no link is followed, and no key replaced.
        file = os.open(asked.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{asked.out} exists; a key is never replaced, name another file\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{asked.out} cannot be made: {error.strerror}\n")
        return 1
    with os.fdopen(file, "w", encoding="ascii") as opened:
        opened.write(to_pem(private))
        opened.flush()
        os.fsync(opened.fileno())
    sys.stdout.write(f"{thumbprint(private.public_key())}\n{public_pem(private.public_key())}")
    return 0


def _list(_: argparse.Namespace) -> int:
    with transaction() as session:
        at = published.moment(session)
        listed = published.published(session)
    for key in listed:
        sys.stdout.write(f"{key.id}  {key.purpose:7}  {_life(key, at)}\n")
    return 0


def _retire(asked: argparse.Namespace) -> int:
    try:
        with transaction() as session:
            since = published.retire(session, asked.key_id)
    except NotFound as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    sys.stdout.write(f"retired since {since.isoformat()}\n")
    return 0


def _life(key: VerifyingKey, at: datetime) -> str:
    since = "" if key.introduced_at is None else f"since {key.introduced_at.isoformat()}"
    if key.retired_at is None:
        return f"in use {since}"
    verb = "retired" if key.retired_at <= at else "to be retired"
    return f"{verb} {key.retired_at.isoformat()}, in use {since}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
