"""What versions hold, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.db import transaction
from app.errors import InvalidCursor, NotFound
from app.holdings import schemas, service
from app.problems import responses
from app.registry import service as registry
from app.registry.schemas import Number
from app.security import Auditor
from app.wire import COMMON, Cursor, Digest, Limit, Name

router = APIRouter(tags=["models"])

WeightsDigest = Annotated[
    Digest | None,
    Query(description="Digest of weights: was the sample in these? 404 if nobody knows them."),
]


@router.get(
    "/v1/models/{name}/versions/{number}/deletions",
    responses=responses(*COMMON, NotFound, InvalidCursor),
)
def deletions(
    name: Name, number: Number, _: Auditor, cursor: Cursor = None, limit: Limit = 50
) -> schemas.DeletionPage:
    """List the deletions that a version includes: its own, and those of every version before it."""
    with transaction() as session:
        version = registry.version(session, registry.get(session, name), number)
        page = service.deletions_in(session, version, cursor, limit)
        versions = service.versions_of(session, page.rows)
    root = version.commitment_root
    return schemas.DeletionPage(
        retained=version.retained_count,
        commitment=None if root is None else root.hex(),
        items=[
            schemas.describe_deletion(erasure, versions[erasure.version_id])
            for erasure in page.rows
            if erasure.version_id is not None
        ],
        next_cursor=page.next_cursor,
    )


@router.get("/v1/samples/{sample_digest}", responses=responses(*COMMON, NotFound))
def sample(
    sample_digest: schemas.SampleDigest,
    _: Auditor,
    version: WeightsDigest = None,
) -> schemas.SampleAnswer:
    """Say which models were trained on a sample, and whether they are still."""
    with transaction() as session:
        asked = [] if version is None else service.versions_named(session, version)
        holdings = service.holdings_of(session, bytes.fromhex(sample_digest))
    return schemas.SampleAnswer(
        models=[schemas.describe_holding(holding, asked) for holding in holdings]
    )
