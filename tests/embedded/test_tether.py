import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded.running import TETHER

Tether = Callable[..., subprocess.Popen[str]]

WAITS = "import signal, os; print(os.getpid(), flush=True); signal.pause()"
IGNORES = (
    "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(os.getpid(), flush=True)\nwhile True: signal.pause()"
)
SAYS_WHICH = """
import os, signal, sys
def leave(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
print(os.getpid(), flush=True)
signal.pause()
"""
# A child in the program's group, and one in a session of its own, as PostgreSQL's backends are.
HAS_CHILDREN = """
import os, signal
for leave_group in (False, True):
    if os.fork() == 0:
        if leave_group:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"%d\\n" % os.getpid())
        while True:
            signal.pause()
os.write(1, b"%d\\n" % os.getpid())
signal.pause()
"""


@pytest.fixture
def tether():
    """Start a program in a tether; a text is a program in Python."""
    started = []

    def start(program: str | list[str], *options: str, **popen: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program] if isinstance(program, str) else program
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", TETHER, *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **popen,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def test_the_end_of_standard_input_ends_the_program_with_the_named_signal(tether: Tether):
    for name in ("TERM", "INT"):
        process = tether(SAYS_WHICH, "--signal", name)
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 5
        assert process.stdout.read() == f"SIG{name}\n"


def test_a_program_that_ignores_the_signal_is_killed_after_the_grace_period(tether: Tether):
    process = tether(IGNORES, "--grace", "0.1")
    process.stdout.readline()
    process.stdin.close()
    assert process.wait(10) == 128 + signal.SIGKILL


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_tether_ends_the_program(tether: Tether, alive, order: signal.Signals):
    process = tether(WAITS)
    program = int(process.stdout.readline())
    process.send_signal(order)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not alive(program)


def test_no_child_outlives_its_program_in_its_group_or_out_of_it(tether: Tether, alive):
    process = tether(HAS_CHILDREN)
    family = [int(process.stdout.readline()) for _ in range(3)]
    assert all(map(alive, family))
    process.stdin.close()
    process.wait(10)
    assert not any(map(alive, family))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_killed_tether_takes_its_program_along(tether: Tether, alive, eventually):
    process = tether(WAITS)
    program = int(process.stdout.readline())
    assert alive(program)
    process.kill()
    eventually(lambda: not alive(program))


def test_a_program_that_ends_ends_its_tether_with_the_same_status(tether: Tether):
    assert tether("raise SystemExit(3)").wait(10) == 3
    assert tether("import os; os.kill(os.getpid(), 9)").wait(10) == 128 + 9


def test_a_program_that_cannot_be_started_is_named():
    ended = subprocess.run(
        [sys.executable, TETHER, "--", "/nowhere/program"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert ended.returncode == 127
    assert "/nowhere/program" in ended.stderr


def test_a_tether_starts_by_its_path_from_any_folder(tether: Tether, tmp_path: Path):
    process = tether("import os; print(os.getcwd())", cwd=tmp_path)
    assert process.stdout.read().strip() == str(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_program_of_another_account_keeps_none_of_roots_groups(tether: Tether):
    nobody = pwd.getpwnam("nobody")
    identity = ["/bin/sh", "-c", "id -u; id -G"]
    process = tether(identity, "--user", "nobody", extra_groups=[0, 42])
    assert process.stdout.read().split() == [str(nobody.pw_uid), str(nobody.pw_gid)]
