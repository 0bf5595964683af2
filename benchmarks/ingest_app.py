"""The service's application with a route beside its own: it validates a request and stores none."""

from fastapi import FastAPI, status

from app.deletions import schemas
from app.deletions.routes import IdempotencyKey
from app.main import create_app
from app.security import Submitter
from app.serving import spare

VALIDATE = "/benchmark/validate"


def create() -> FastAPI:
    """Return the application.

    The route is asynchronous, as the one that it is held against: a thread would cost it more.
    """
    app = create_app()

    @app.post(VALIDATE, status_code=status.HTTP_202_ACCEPTED)
    async def validate(
        body: schemas.NewDeletionRequest, caller: Submitter, idempotency_key: IdempotencyKey = None
    ) -> dict[str, object]:
        """Answer after the same checks of the same body and headers."""
        known = idempotency_key is not None
        return {"client": caller.name, "samples": len(body.sample_ids), "key": known}

    spare()
    # Found as early as the route that it is held against.
    app.router.routes.insert(0, app.router.routes.pop())
    return app
