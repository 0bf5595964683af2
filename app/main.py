"""The API application: routers, errors and the middleware before them."""

from importlib.metadata import version

from fastapi import FastAPI

from app import gate, health, keys, logs, problems
from app.access import Access
from app.access_keys.routes import router as access_keys_router
from app.audit.routes import keys_router
from app.audit.routes import router as audit_router
from app.body_limit import BodyLimit
from app.callbacks.routes import router as callbacks_router
from app.deletions.bulk_routes import MOST_STREAMS
from app.deletions.bulk_routes import PATH as BULK
from app.deletions.bulk_routes import router as bulk_router
from app.deletions.bulk_stream import Places
from app.deletions.decision_routes import router as decisions_router
from app.deletions.gathering import Gathering
from app.deletions.routes import describe_stored
from app.deletions.routes import router as deletions_router
from app.events.broadcast import Broadcast
from app.events.routes import router as events_router
from app.exports.routes import router as exports_router
from app.holdings.routes import router as holdings_router
from app.jobs.routes import router as jobs_router
from app.opendsr import answers, signing
from app.opendsr.routes import router as opendsr_router
from app.recall.routes import router as recall_router
from app.receipts.routes import router as receipts_router
from app.registry.routes import CHECKPOINTS
from app.registry.routes import router as registry_router
from app.settings import settings

DESCRIPTION = """\
Send "right to be forgotten" requests for training samples. They are stored durably, batched into
unlearning jobs, verified, and end in a new model version with evidence in a transparency log.
"""


def create_app() -> FastAPI:
    """Return the application.

    Raises:
        RuntimeError: LETHE_ID_KEY is not set.
        KeyRefused: there is no usable LETHE_LOG_KEY, or OpenDSR is set up in part or wrongly.

    """
    logs.set_up()
    settings().required_id_key()
    keys.log_key()
    signing.certificates()
    app = FastAPI(
        title="Lethe",
        version=version("lethe"),
        description=DESCRIPTION,
        # One page of documentation is enough.
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.events = Broadcast()
    app.state.gathering = Gathering(describe_stored)
    app.state.bulk_places = Places(MOST_STREAMS)
    problems.install(app)
    # The last one added stands first: nobody without a key gets to have a body counted.
    app.add_middleware(
        BodyLimit,
        limit=settings().json_body_limit,
        exempt=lambda path: path in (CHECKPOINTS, BULK),
    )
    app.add_middleware(
        gate.Closed,
        identities=gate.identities_of(settings()),
        rates=gate.rates_of(settings()),
    )
    app.add_middleware(answers.Answers)
    app.add_middleware(Access)
    # Around that one, too, which answers what nobody foresaw.
    app.add_middleware(answers.Answers)
    for router in (
        deletions_router,
        bulk_router,
        decisions_router,
        receipts_router,
        registry_router,
        recall_router,
        callbacks_router,
        holdings_router,
        jobs_router,
        exports_router,
        audit_router,
        keys_router,
        opendsr_router,
        access_keys_router,
        health.router,
    ):
        # Nothing is added to their routes here. To include them would build each anew for this
        # application, a quarter of a second at its first request.
        app.router.routes.extend(router.routes)
    # It has a lifespan of its own.
    app.include_router(events_router)
    answers.describe(app)
    return app
