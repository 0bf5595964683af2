"""The application as a server's process runs it."""

import gc

from fastapi import FastAPI

from app.main import create_app

# Objects that may be allocated before the youngest are looked through, and how often the older
# ones are. By Python's own numbers the requests of a few seconds have all objects of the process
# looked through, which takes a tenth of a second, and everybody waits.
THRESHOLDS = (20_000, 20, 50)


def create() -> FastAPI:
    """Return the application of a process that does nothing else.

    Raises:
        RuntimeError: LETHE_ID_KEY is not set.
        KeyRefused: there is no usable LETHE_LOG_KEY, or OpenDSR is set up in part or wrongly.

    """
    app = create_app()
    spare()
    return app


def spare() -> None:
    """Have the collector of garbage leave alone what is there: modules, routes, descriptions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
