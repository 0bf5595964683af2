"""Structured logs: one JSON object a line, on standard error, with ids and never with content."""

import logging
import sys

import structlog

from app.settings import settings


def set_up() -> None:
    """Send this process's own events and the libraries' warnings to standard error."""
    level = getattr(logging, settings().log_level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Frames, not local variables: a frame of the intake holds sample IDs.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each event: a worker's standard error is replaced after the start.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
