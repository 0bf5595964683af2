"""`python -m embedded serve`: the whole service on this machine, until Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.state import DEFAULT_FOLDER
from embedded.supervisor import DEFAULT_PORT, Supervisor
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
            say(f"API key  {supervisor.api_key}")
            say(f"Logs     {supervisor.logs}")
            supervisor.wait()
    except KeyboardInterrupt:
        say("Stopped")
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    open_standard_streams()
    selected = parse(sys.argv[1:])
    sys.exit(selected.run(selected))
