"""Run one program that never outlives whoever started it.

    python tether.py --signal INT --grace 10 [--user NAME] -- command argument...

The starter holds the write end of a pipe that is this process's standard input. However the
starter ends, also by SIGKILL, the kernel closes that end, and end-of-file is the order to stop; so
are SIGTERM, SIGINT and SIGHUP. The program then gets the named signal, has the grace period to
finish, and is killed with everything it left behind. Nothing here polls: signals arrive as bytes in
a pipe of their own (`set_wakeup_fd`), and one `select` waits for both pipes.

The named signal goes to the program alone, not to its group: PostgreSQL's postmaster, Celery's main
process and Uvicorn each shut their own children down in order, and a signal to those children as
well would break the work that the grace period is meant to save. SIGKILL goes to the whole group.

On Linux two more doors are shut: a program whose tether is itself killed by SIGKILL is killed by
the kernel (PDEATHSIG), and processes that left the group (each PostgreSQL backend starts a session
of its own) become children of the tether (SUBREAPER), which ends them after the program. Left is
the case that starter and tether are killed at the same instant: the kernel then ends the program,
and what the program forked has to notice by itself.

Only the standard library, and started by its path with `python -I -S`: it is up in a few hundredths
of a second, from any folder, whatever is installed.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
CANNOT_START = 127  # what a shell answers for a command that it cannot start


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tether", description=__doc__)
    parser.add_argument("--signal", default="TERM", type=lambda name: signal.Signals[f"SIG{name}"])
    parser.add_argument("--grace", default=10.0, type=float, help="seconds before SIGKILL")
    parser.add_argument("--user", help="an account's name, or UID:GID")
    parser.add_argument("--pid-fd", type=int, help="where to write the program's process id")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def listen() -> int:
    """Turn signals into bytes; returns the file descriptor that they arrive at."""
    arrivals, departures = os.pipe()
    os.set_blocking(arrivals, False)
    os.set_blocking(departures, False)
    signal.set_wakeup_fd(departures, warn_on_full_buffer=False)
    for number in (*STOPS, signal.SIGCHLD):
        # A handler, because an ignored signal is never reported and stays ignored in the program.
        signal.signal(number, lambda *_: None)
    return arrivals


def prctl() -> Callable[[int, int], int] | None:
    """The kernel call behind both extra guarantees, where there is one."""
    return ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def identity(user: str | None) -> dict[str, object]:
    """Popen's arguments that drop root's rights, supplementary groups included."""
    if user is None:
        return {}
    if ":" in user:
        uid, gid = (int(number) for number in user.split(":"))
    else:
        import pwd  # only here: the starters of ours pass numbers

        entry = pwd.getpwnam(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    return {"user": uid, "group": gid, "extra_groups": []}


def start(command: list[str], user: str | None) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, bound to the life of this process."""
    kernel, tether = prctl(), os.getpid()
    if kernel is not None:
        kernel(PR_SET_CHILD_SUBREAPER, 1)

    def die_with_tether() -> None:
        # Runs after the change of user, which would have cleared it.
        if kernel is not None:
            kernel(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != tether:  # it died before the line above
                os._exit(CANNOT_START)

    program: subprocess.Popen[bytes] = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_tether,
        **identity(user),  # type: ignore[call-overload]
    )
    return program


def has_ended(pid: int) -> bool:
    """Whether the program ended. It is not reaped: until then nobody else can get its id."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for_end_or_order(pid: int, arrivals: int) -> bool:
    """Wait until the program ended by itself (true) or has to be stopped (false)."""
    while True:
        ready, _, _ = select.select([arrivals, sys.stdin.fileno()], [], [])
        received = os.read(arrivals, 512) if arrivals in ready else b""
        if has_ended(pid):
            return True
        if STOPS.intersection(received):
            return False
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 512):
            return False


def wait_for_end(pid: int, arrivals: int, seconds: float) -> bool:
    """Wait for the program alone; false when the time is up."""
    deadline = time.monotonic() + seconds
    while not has_ended(pid):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if select.select([arrivals], [], [], left)[0]:
            os.read(arrivals, 512)
    return True


def kill_group(pid: int) -> None:
    """SIGKILL the program's group; the program itself may be over already."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError) as error:  # macOS: PermissionError for a zombie
        if not has_ended(pid):
            raise RuntimeError(f"process group {pid} cannot be killed") from error


def kill_orphans() -> None:
    """End what the program left behind outside its group; the kernel made these our children."""
    children = Path("/proc/thread-self/children")
    while children.exists() and (orphans := children.read_text().split()):
        for orphan in orphans:
            os.kill(int(orphan), signal.SIGKILL)
            os.waitpid(int(orphan), 0)


def main(arguments: list[str]) -> int:
    """Run the program to its end; returns its exit status, 128 + N for a death by signal N."""
    options = parse(arguments)
    arrivals = listen()
    try:
        program = start(options.command, options.user)
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        print(f"tether: cannot start {options.command[0]}: {error}", file=sys.stderr)
        return CANNOT_START
    if options.pid_fd is not None:
        # Nobody reads it any more when the starter is gone; its end then arrives as end-of-file.
        with contextlib.suppress(BrokenPipeError), open(options.pid_fd, "w") as report:
            report.write(f"{program.pid}\n")
    if not wait_for_end_or_order(program.pid, arrivals):
        os.kill(program.pid, options.signal)  # not reaped yet, so the id is still its own
        wait_for_end(program.pid, arrivals, options.grace)
    kill_group(program.pid)
    status = program.wait()
    kill_orphans()
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
