"""`python -m embedded serve`: the whole service on this machine, until Ctrl-C.

`python -m embedded new-key`: another key for its operator in the place of one that was lost.
`python -m embedded scrub`: check what it stored, whether it runs or not.
`python -m embedded lethe COMMAND`: what an operator does with its evidence, whether it runs or not.
"""

import argparse
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from embedded import operator_key
from embedded.commands import LETHE, SCRUB, SECRETS, Program
from embedded.environment import environment_for, secrets_of
from embedded.errors import EmbeddedError, FolderRefused
from embedded.postgres import DATABASE, ROLE
from embedded.server import HOST
from embedded.servers import Servers
from embedded.state import DEFAULT_FOLDER, SECRETS_FILE, hold, keep_key_digest, load_secrets
from embedded.supervisor import (
    BROKER_URL,
    DATABASE_URL,
    DEFAULT_PORT,
    Supervisor,
    urls_from_environment,
)
from embedded.terminal import open_standard_streams, say

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m embedded")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve", help="start the service here and leave it running")
    command.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where its state lies (%(default)s)"
    )
    command.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 for any free one (%(default)s)"
    )
    command.add_argument("--verbose", action="store_true", help="repeat all logs here")
    command.set_defaults(run=serve)
    command = commands.add_parser(
        "new-key",
        help="replace the operator's key of the service here, which must not run; shown once",
    )
    command.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where the state lies (%(default)s)"
    )
    command.set_defaults(run=replace_key)
    command = commands.add_parser(
        "scrub", help="find damaged and forgotten files, while the service runs or not"
    )
    command.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where the state lies (%(default)s)"
    )
    command.add_argument(
        "options", nargs="*", metavar="-- OPTION", help="passed on to `python -m app.scrub`"
    )
    command.set_defaults(run=lambda options: operate(SCRUB, options))
    command = commands.add_parser(
        "lethe", help="run `lethe COMMAND` with the settings and keys of the service here"
    )
    command.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where the state lies (%(default)s)"
    )
    command.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="such as `keys list`, `log export --out FILE` or `rerun JOB`",
    )
    command.set_defaults(run=lambda options: operate(LETHE, options))
    return parser.parse_args(arguments)


def stop_at_first_signal() -> None:
    """Turn the first signal into KeyboardInterrupt; later ones must not disturb the stopping."""

    def interrupt(*_: object) -> None:
        for number in STOPS:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in STOPS:
        signal.signal(number, interrupt)


def serve(options: argparse.Namespace) -> int:
    """Run the service as the command line says."""
    return run(Supervisor(options.folder, port=options.port, verbose=options.verbose))


def run(supervisor: Supervisor) -> int:
    """Keep the service up until a signal comes; returns the exit status."""
    stop_at_first_signal()
    say("Starting (Ctrl-C stops everything)")
    try:
        with supervisor:
            say(f"API      {supervisor.url}/docs")
            say(f"API key  {describe_key(supervisor)}")
            say(f"Logs     {supervisor.logs}")
            supervisor.wait()
    except KeyboardInterrupt:
        say("Stopped")
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def describe_key(supervisor: Supervisor) -> str:
    """Say the key at the start that made it, and later on how to get another."""
    if key := supervisor.take_new_key():
        return f"{key} (shown this once: keep it)"
    if given := operator_key.variable_in_use():
        return f"that of {given}"
    another = f"`python -m embedded new-key --folder {supervisor.folder}`"
    return f"the one that was shown when it was made; another one: {another}"


def replace_key(options: argparse.Namespace) -> int:
    """Make the operator's key anew and print it, this once; returns the exit status."""
    folder = options.folder.resolve()
    try:
        given = operator_key.variable_in_use()
        _require_state(folder)
        with hold(folder):
            load_secrets(folder)  # refuses damaged ones, which are to stay as they are
            key = operator_key.make()
            keep_key_digest(folder, operator_key.digest_of(key))
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # The key alone on standard output, so that a program can keep it without showing it.
    print("The operator's key from the next start on, shown this once:", file=sys.stderr)
    if given:
        print(f"{given} is set here, and goes before it.", file=sys.stderr)
    say(key)
    return 0


def operate(program: Program, options: argparse.Namespace) -> int:
    """Run a program on a state folder; returns its exit status, or 2 when it cannot start."""
    folder = options.folder.resolve()
    stop_at_first_signal()
    try:
        with ExitStack() as resources:
            database, broker = urls_from_environment() or (_database(folder, resources), "redis://")
            service = {
                "LETHE_MODE": "embedded",
                "LETHE_ARTIFACTS_FOLDER": str(folder / "artifacts"),
                DATABASE_URL: database,
                BROKER_URL: broker,  # none of them asks it
            }
            return subprocess.run(
                [sys.executable, "-m", *program.command, *options.options],
                env=environment_for(program, service, _secrets(folder, program)),
                check=False,
            ).returncode
    except KeyboardInterrupt:
        say("Stopped")
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


def _secrets(folder: Path, program: Program) -> dict[str, str]:
    if not program.secrets:
        return dict.fromkeys(SECRETS, "")
    _require_state(folder)
    return secrets_of(folder, load_secrets(folder))


def _require_state(folder: Path) -> None:
    if not (folder / SECRETS_FILE).exists():
        raise FolderRefused(f"{folder} holds no service's state; choose another --folder")


def _database(folder: Path, resources: ExitStack) -> str:
    """The URL of the folder's private database, which is started if the service does not run."""
    if not (folder / "data" / "postgres").exists():
        raise FolderRefused(f"{folder} holds no service's state; choose another --folder")
    try:
        servers = resources.enter_context(Servers(folder, only="postgres"))
    except FolderRefused:
        port = _running_port(folder)
        if port is None:
            raise
    else:
        return servers.database_url
    password = load_secrets(folder).database_password
    # Should the port be somebody else's by now, they must not be told the password.
    asked = "require_auth=scram-sha-256"
    return f"postgresql+psycopg://{ROLE}:{password}@{HOST}:{port}/{DATABASE}?{asked}"


def _running_port(folder: Path) -> int | None:
    """Where the folder's PostgreSQL listens; None when it is not up."""
    try:
        lines = (folder / "data" / "postgres" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    # PostgreSQL's own file: the port is its fourth line, the eighth says how far it is.
    return int(lines[3]) if len(lines) >= 8 and lines[7].strip() == "ready" else None


if __name__ == "__main__":
    open_standard_streams()
    selected = parse(sys.argv[1:])
    sys.exit(selected.run(selected))
