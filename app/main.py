"""The API application: routers, errors and the middleware before them."""

from importlib.metadata import version

from fastapi import FastAPI

from app import health, keys, logs, problems
from app.access import Access
from app.audit.routes import keys_router
from app.audit.routes import router as audit_router
from app.body_limit import BodyLimit
from app.deletions.routes import router as deletions_router
from app.exports.routes import router as exports_router
from app.holdings.routes import router as holdings_router
from app.jobs.routes import router as jobs_router
from app.recall.routes import router as recall_router
from app.receipts.routes import router as receipts_router
from app.registry.routes import CHECKPOINTS
from app.registry.routes import router as registry_router
from app.security import Closed, api_key
from app.settings import settings

DESCRIPTION = """\
Send "right to be forgotten" requests for training samples. They are stored durably, batched into
unlearning jobs, verified, and end in a new model version with evidence in a transparency log.
"""


def create_app() -> FastAPI:
    """Return the application.

    Raises:
        RuntimeError: LETHE_API_KEY or LETHE_ID_KEY is not set; the API does not start open.
        KeyRefused: there is no usable LETHE_LOG_KEY.

    """
    logs.set_up()
    settings().required_id_key()
    keys.log_key()
    app = FastAPI(
        title="Lethe",
        version=version("lethe"),
        description=DESCRIPTION,
        # One page of documentation is enough.
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    problems.install(app)
    # The last one added stands first: nobody without a key gets to have a body counted.
    app.add_middleware(
        BodyLimit, limit=settings().json_body_limit, exempt=lambda path: path == CHECKPOINTS
    )
    app.add_middleware(Closed, key=api_key())
    app.add_middleware(Access)
    for router in (
        deletions_router,
        receipts_router,
        registry_router,
        recall_router,
        holdings_router,
        jobs_router,
        exports_router,
        audit_router,
        keys_router,
        health.router,
    ):
        app.include_router(router)
    return app
