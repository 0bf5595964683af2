"""Bounds on attempts, for tests that do not wait for them."""

from datetime import timedelta

from app.jobs.backoff import Retrying

DAY = timedelta(days=1)


def tries(attempts: int) -> Retrying:
    """As many failures as this, and hardly a pause between them."""
    return Retrying(attempts, timedelta(microseconds=1), timedelta(microseconds=1))
