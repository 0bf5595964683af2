"""The programs that make up the service; the one place where their command lines are written.

`docker-compose.yml` runs the same ones, with another {host}.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

API_KEY = "LETHE_API_KEY"  # names of environment variables, not secrets
API_KEY_DIGEST = "LETHE_API_KEY_DIGEST"
ID_KEY = "LETHE_ID_KEY"
# A private key is handed on by its name or by that of a file, whichever there is.
LOG_KEY, LOG_KEY_FILE = "LETHE_LOG_KEY", "LETHE_LOG_KEY_FILE"
WEIGHTS_KEY, WEIGHTS_KEY_FILE = "LETHE_WEIGHTS_KEY", "LETHE_WEIGHTS_KEY_FILE"
OPENDSR_KEY, OPENDSR_KEY_FILE = "LETHE_OPENDSR_KEY", "LETHE_OPENDSR_KEY_FILE"
# No secret, and like one: the file that fits the key goes with it.
OPENDSR_CERTIFICATE_FILE = "LETHE_OPENDSR_CERTIFICATE_FILE"
SECRETS = (
    *(API_KEY, API_KEY_DIGEST, ID_KEY),
    *(LOG_KEY, LOG_KEY_FILE, WEIGHTS_KEY, WEIGHTS_KEY_FILE),
    *(OPENDSR_KEY, OPENDSR_KEY_FILE, OPENDSR_CERTIFICATE_FILE),
)


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running process; {host} and {port} in its command are filled in at its start."""

    name: str
    command: tuple[str, ...]
    secrets: frozenset[str] = frozenset()  # the only secrets that it gets
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    stop_signal: str = "TERM"
    grace_seconds: float = 5.0


MIGRATIONS = Program("migrations", ("alembic", "upgrade", "head"))

API = Program(
    "api",
    (
        *("uvicorn", "--factory", "app.serving:create", "--host", "{host}", "--port", "{port}"),
        # The application logs its requests itself, by route: a path can quote a sample ID. A
        # download may go on for a while when the process is asked to end, and not for ever.
        *("--no-access-log", "--timeout-graceful-shutdown", "30"),
    ),
    secrets=frozenset(
        {
            *(API_KEY, API_KEY_DIGEST, ID_KEY, LOG_KEY, LOG_KEY_FILE),
            *(OPENDSR_KEY, OPENDSR_KEY_FILE, OPENDSR_CERTIFICATE_FILE),
        }
    ),
)

WORKER = Program(
    "worker",
    (
        *("celery", "--app", "workers.celery_app", "worker", "--queues", "jobs"),
        *("--pool", "prefork", "--concurrency", "1", "--hostname", "worker@%h"),
    ),
    secrets=frozenset({ID_KEY, WEIGHTS_KEY, WEIGHTS_KEY_FILE}),
    # Threads that wait for work would otherwise spin, and starve the API on a small machine.
    environment=MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE"}),
    # A job is given back within ten seconds, and what holds on is killed by then.
    grace_seconds=20.0,
)

SCHEDULER = Program(
    "scheduler",
    (
        *("celery", "--app", "workers.celery_app", "worker"),
        # The schedule in memory: the default one writes a file into the current folder.
        *("--beat", "--scheduler", "celery.beat:Scheduler"),
        *("--queues", "control", "--pool", "solo", "--hostname", "scheduler@%h"),
    ),
    # It signs the log, and what controllers are told.
    secrets=frozenset({LOG_KEY, LOG_KEY_FILE, OPENDSR_KEY, OPENDSR_KEY_FILE}),
)

PROGRAMS = (API, WORKER, SCHEDULER)

# These end by themselves, and answer on the terminal that they were asked from.
SCRUB = Program("scrub", ("app.scrub",))
# What an operator does with the evidence: keys, log, weights, rerun, export.
LETHE = Program("lethe", ("lethe",), secrets=frozenset(SECRETS) - {API_KEY, API_KEY_DIGEST})
