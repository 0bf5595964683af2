"""Programs that the supervisor starts in place of the real ones, and a way to serve with them.

stand_in.py api PORT | stand_in.py work NOTES NAME | stand_in.py serve FOLDER NOTES [verbose]
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from embedded.commands import PROGRAMS, Program


def programs(notes: Path) -> tuple[Program, ...]:
    """The real names, secrets and environments, with stand-ins to run."""
    this = (sys.executable, str(Path(__file__).resolve()))
    commands = {
        "api": (*this, "api", "{port}"),
        "worker": (*this, "work", str(notes), "worker"),
        "scheduler": (*this, "work", str(notes), "scheduler"),
    }
    return tuple(
        Program(each.name, commands[each.name], each.secrets, each.environment) for each in PROGRAMS
    )


class Api(BaseHTTPRequestHandler):
    """Is ready at once, and answers with its environment."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())


def work(notes: Path, name: str) -> None:
    """Have a child; note both at the start, and the name at an orderly end."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()

    def leave(*_: object) -> None:
        with (notes / "ends").open("a") as ends:
            ends.write(f"{name}\n")
        sys.exit()

    signal.signal(signal.SIGTERM, leave)
    note = notes / f"{name}.{os.getpid()}"
    note.write_text(json.dumps({"child": child, **os.environ}))
    note.rename(notes / f"{name}.json")
    sys.stdout.write("the work begins\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def serve(folder: Path, notes: Path, *, verbose: bool) -> int:
    """What `python -m embedded serve` does, with these programs."""
    from embedded.__main__ import run
    from embedded.supervisor import Supervisor

    return run(
        Supervisor(
            folder,
            port=0,
            programs=programs(notes),
            migrations=None,
            durable=False,
            verbose=verbose,
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "api":
        HTTPServer(("127.0.0.1", int(sys.argv[2])), Api).serve_forever()
    elif sys.argv[1] == "work":
        work(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(serve(Path(sys.argv[2]), Path(sys.argv[3]), verbose="verbose" in sys.argv))
