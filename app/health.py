"""Whether this process lives, and whether it can keep a promise."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from app import db, queue
from app.audit import heads
from app.wire import Answer

router = APIRouter(tags=["health"])


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """What this process depends on."""

    status: Literal["ready", "degraded", "unavailable"]
    database: Literal["ok", "unreachable", "not migrated"]
    broker: Literal["ok", "unreachable"]
    log: heads.State | None = None


@router.get("/healthz")
def healthz() -> Health:
    """Say that the process lives."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Nothing is stored."}})
def readyz() -> JSONResponse:
    """Say whether requests can be stored.

    Without the broker they can, and the work is delayed; while the log signs nothing they can, and
    receipts wait.
    """
    broker: Literal["ok", "unreachable"] = "ok" if queue.ping() else "unreachable"
    database: Literal["ok", "unreachable", "not migrated"]
    log: heads.State | None = None
    try:
        database = "ok" if db.is_migrated() else "not migrated"
        if database == "ok":
            log = heads.state()
    except SQLAlchemyError:
        database = "unreachable"
    if database != "ok":
        state = Readiness(status="unavailable", database=database, broker=broker)
        return JSONResponse(state.model_dump(), 503, headers={"Retry-After": "5"})
    state = Readiness(
        status="ready" if (broker, log) == ("ok", "ok") else "degraded",
        database=database,
        broker=broker,
        log=log,
    )
    return JSONResponse(state.model_dump())
