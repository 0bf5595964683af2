"""``lethe access``: make a key for a client, list the keys, revoke one; the API need not run."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from app.access_keys import credentials, service
from app.access_keys.lookup import is_valid
from app.access_keys.schemas import LONGEST_LIFE_DAYS, ClientName
from app.db import now, transaction
from app.errors import NotFound
from app.scopes import OPERATOR, Scope
from app.tables import AccessKey

PAGE = 200


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns 0, 1 if it is refused, or 2 if the database does not answer."""
    parser = argparse.ArgumentParser(prog="lethe access", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("create", help="make a key, and print it this once")
    command.add_argument("name", type=_client_name, help="the client's: an application or a role")
    command.add_argument(
        "--scope",
        type=Scope,
        choices=list(Scope),
        action="append",
        required=True,
        help="what it opens; may be given several times",
    )
    command.add_argument("--days", type=_days, help="after how many it expires; never, if not set")
    command.set_defaults(run=_create)
    command = commands.add_parser("list", help="list the keys, newest first")
    command.set_defaults(run=_list)
    command = commands.add_parser("revoke", help="let a key open nothing more")
    command.add_argument("key_id", type=_key_id, metavar="ID", help="its id, or the key itself")
    command.set_defaults(run=_revoke)
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked))
    except SQLAlchemyError as error:
        sys.stderr.write(f"The database does not answer: {type(error).__name__}\n")
        return 2


def _client_name(text: str) -> str:
    try:
        return TypeAdapter(ClientName).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(
            f"must be 1 to 63 of a-z, 0-9, '.', '_' and '-', and not {OPERATOR!r}"
        ) from None


def _days(text: str) -> timedelta:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LONGEST_LIFE_DAYS:
        raise argparse.ArgumentTypeError(f"must be 1 to {LONGEST_LIFE_DAYS}")
    return timedelta(days=int(text[:9]))


def _key_id(text: str) -> UUID:
    shown = credentials.read(text)
    try:
        return UUID(text) if shown is None else shown.id
    except ValueError:
        # Without the text: it may be most of a key.
        raise argparse.ArgumentTypeError("is no key's id") from None


def _create(asked: argparse.Namespace) -> int:
    expires_at = None if asked.days is None else now() + asked.days
    with transaction() as session:
        row, text = service.create(session, asked.name, asked.scope, expires_at, OPERATOR)
    # The key alone on standard output, so that a program can keep it without showing it.
    sys.stderr.write(f"{row.id}  {_life(row)}\n")
    sys.stdout.write(f"{text}\n")
    return 0


def _list(_: argparse.Namespace) -> int:
    cursor, more = None, True
    while more:
        with transaction() as session:
            page = service.browse(session, cursor, PAGE)
        for row in page.rows:
            sys.stdout.write(f"{row.id}  {row.name}  {','.join(row.scopes)}  {_life(row)}\n")
        cursor, more = page.next_cursor, page.next_cursor is not None
    return 0


def _revoke(asked: argparse.Namespace) -> int:
    try:
        with transaction() as session:
            row = service.revoke(session, asked.key_id, OPERATOR)
    except NotFound as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    sys.stdout.write(f"{_life(row)}\n")
    return 0


def _life(row: AccessKey) -> str:
    used = "never used" if row.last_used_at is None else f"used {row.last_used_at.isoformat()}"
    if row.revoked_at is not None:
        return f"revoked {row.revoked_at.isoformat()}, {used}"
    if row.expires_at is None:
        return f"for good, {used}"
    verb = "until" if is_valid(row, now()) else "expired"
    return f"{verb} {row.expires_at.isoformat()}, {used}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
