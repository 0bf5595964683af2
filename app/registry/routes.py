"""Checkpoints, models and their versions over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from app import conditional, queue
from app.artifacts import DIGEST_PATTERN, ArtifactStore, Incoming, Stored, lock_file
from app.checkpoints import require_safetensors
from app.conditional import IfNoneMatch
from app.db import transaction
from app.derived import references
from app.errors import (
    ContentTooLarge,
    Gone,
    InvalidCursor,
    Malformed,
    NameTaken,
    NoCurrentVersion,
    NotACheckpoint,
    NotFound,
    RangeNotSatisfiable,
    StorageFailed,
    UnknownCheckpoint,
)
from app.problems import responses
from app.registry import schemas, service, weights
from app.retention import plans, withdrawn
from app.security import Deployer, ModelReader, ModelWriter
from app.settings import settings
from app.statuses import ModelStatus, VersionStatus
from app.tables import ModelVersion, RegisteredModel
from app.wire import COMMON, WITH_BODY, Cursor, Limit, Name, accepted, retry_after

CHECKPOINTS = "/v1/checkpoints"

router = APIRouter(tags=["models"])

Tags = Annotated[str | None, Header(max_length=2_000)]


@router.post(
    CHECKPOINTS,
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {
            "description": "Durable in the artifact store.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(*COMMON, Malformed, Gone, ContentTooLarge, NotACheckpoint, StorageFailed),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {weights.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(request: Request, _: ModelWriter, response: Response) -> schemas.CheckpointAnswer:
    """Store a safetensors file. It is streamed to the disk and never held in memory whole."""
    with _store().incoming(settings().checkpoint_limit) as file:
        try:
            async for chunk in request.stream():
                await run_in_threadpool(file.write, chunk)
        except ClientDisconnect as error:
            raise Malformed("The upload broke off; send it again.") from error
        await run_in_threadpool(require_safetensors, file.flush())
        stored = await run_in_threadpool(_keep, file)
    response.headers["Location"] = f"{CHECKPOINTS}/{stored.digest}"
    return schemas.CheckpointAnswer(digest=stored.digest, size_bytes=stored.size_bytes)


@router.get(CHECKPOINTS + "/{digest}", responses=responses(*COMMON, NotFound, Gone))
def get_checkpoint(digest: str, _: ModelWriter) -> schemas.CheckpointAnswer:
    """Say whether a checkpoint is stored."""
    if DIGEST_PATTERN.fullmatch(digest):
        with transaction() as session:
            withdrawn.refuse(session, digest)
    path = _store().find(digest)
    if path is None:
        raise NotFound("No checkpoint of this digest is stored; upload it.")
    return schemas.CheckpointAnswer(digest=digest, size_bytes=path.stat().st_size)


@router.post(
    "/v1/models",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        **accepted("/v1/models/digits"),
        **responses(*WITH_BODY, Gone, UnknownCheckpoint, NameTaken),
    },
)
def register(body: schemas.NewModel, _: ModelWriter, response: Response) -> schemas.ModelAnswer:
    """Register a model. A worker checks it; then it is `ready`, or `rejected` with all reasons."""
    with transaction() as session:
        # Held, or a scrub could remove it as nobody's before the row says whose it is.
        held = _store().hold(session, body.checkpoint)
        # First who has the name: it may be the caller, whose answer was lost.
        model = service.register(session, body.name, body.recipe, body.checkpoint, body.policy)
        withdrawn.refuse(session, body.checkpoint)
        if held is None:
            raise UnknownCheckpoint(f"Upload it first: POST {CHECKPOINTS}.")
    queue.nudge(queue.CHECK_MODEL, model.id)
    response.headers["Location"] = f"/v1/models/{model.name}"
    response.headers.update(retry_after())
    return schemas.describe_model(model, None, None)


@router.get("/v1/models", responses=responses(*COMMON, InvalidCursor))
def browse(
    _: ModelReader,
    status: ModelStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> schemas.ModelPage:
    """List models, newest first."""
    with transaction() as session:
        page = service.browse(session, status, cursor, limit)
        current = service.current_versions(session, page.rows)
        found = references.status(session, [model.id for model in page.rows])
    return schemas.ModelPage(
        items=[
            schemas.describe_model(model, current.get(model.id), found.get(model.id))
            for model in page.rows
        ],
        next_cursor=page.next_cursor,
    )


@router.get(
    "/v1/models/{name}",
    response_model=schemas.ModelAnswer,
    responses={**conditional.described(), **responses(*COMMON, NotFound)},
)
def get(name: Name, _: ModelReader, known: IfNoneMatch) -> Response:
    """Return one model."""
    with transaction() as session:
        model = service.get(session, name)
        current = service.current_versions(session, [model])
        found = references.status(session, [model.id])
    answer = schemas.describe_model(model, current.get(model.id), found.get(model.id))
    return known.answer(answer, retry_after() if model.status == ModelStatus.CHECKING else None)


@router.get("/v1/models/{name}/versions", responses=responses(*COMMON, NotFound))
def versions(
    name: Name, _: ModelReader, after: schemas.After = 0, limit: Limit = 50
) -> schemas.VersionPage:
    """Return a model's versions, oldest first."""
    with transaction() as session:
        model = service.get(session, name)
        found = service.versions(session, model, after, limit + 1)
        more, found = len(found) > limit, found[:limit]
        described = schemas.describe_versions(model.name, found, plans.plan(session, found))
    return schemas.VersionPage(items=described, next_after=found[-1].number if more else None)


@router.get(
    "/v1/models/{name}/versions/{number}",
    response_model=schemas.VersionAnswer,
    responses={**conditional.described(), **responses(*COMMON, NotFound)},
)
def version(name: Name, number: schemas.Number, _: ModelReader, known: IfNoneMatch) -> Response:
    """Return one version."""
    with transaction() as session:
        model = service.get(session, name)
        answer = _describe(session, service.version(session, model, number), model)
    return known.answer(answer)


@router.get(
    "/v1/models/{name}/current",
    response_model=schemas.VersionAnswer,
    responses={**conditional.described(), **responses(*COMMON, NotFound, NoCurrentVersion)},
)
def current(name: Name, _: ModelReader, known: IfNoneMatch) -> Response:
    """Return the version to serve now."""
    with transaction() as session:
        model = service.get(session, name)
        answer = _describe(session, service.current(session, model), model)
    return known.answer(answer)


_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {weights.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        "description": "The safetensors file; `ETag` is its digest.",
    },
    206: {"description": "The ranges of the file that were asked for."},
    304: {"description": "The client has it already."},
}
_DOWNLOAD_FAILED = (*COMMON, Malformed, NotFound, RangeNotSatisfiable, StorageFailed)


@router.get(
    "/v1/models/{name}/current/weights",
    response_class=Response,
    responses={
        **_DOWNLOAD,
        **responses(*_DOWNLOAD_FAILED, NoCurrentVersion),
    },
)
def current_weights(name: Name, _: Deployer, if_none_match: Tags = None) -> Response:
    """Download the current weights."""
    with transaction() as session:
        found = service.current(session, service.get(session, name))
    return _download(name, found, if_none_match)


@router.get(
    "/v1/models/{name}/versions/{number}/weights",
    response_class=Response,
    responses={**_DOWNLOAD, **responses(*_DOWNLOAD_FAILED, Gone)},
)
def version_weights(
    name: Name, number: schemas.Number, _: Deployer, if_none_match: Tags = None
) -> Response:
    """Download the weights of one version, unless it was withdrawn: it still holds the data."""
    with transaction() as session:
        found = service.version(session, service.get(session, name), number)
    if found.status == VersionStatus.PURGED:
        raise Gone("This version was purged: its weights are gone. Download the current one.")
    if found.status != VersionStatus.CURRENT:
        raise Gone("This version was withdrawn; download the current one.")
    return _download(name, found, if_none_match)


_SIGNATURE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {weights.SIGNATURE_MEDIA_TYPE: {"schema": {"type": "object"}}},
        "description": "A Sigstore bundle, as OpenSSF model signing makes and verifies it.",
    },
}


@router.get(
    "/v1/models/{name}/current/signature",
    response_class=Response,
    responses={**_SIGNATURE, **responses(*COMMON, NotFound, NoCurrentVersion)},
)
def current_signature(name: Name, _: Deployer) -> Response:
    """Download the signature of the current weights."""
    with transaction() as session:
        found = service.current(session, service.get(session, name))
    return _signature(name, found)


@router.get(
    "/v1/models/{name}/versions/{number}/signature",
    response_class=Response,
    responses={**_SIGNATURE, **responses(*COMMON, NotFound, Gone)},
)
def version_signature(name: Name, number: schemas.Number, _: Deployer) -> Response:
    """Download the signature of one version's weights, unless it was withdrawn, as they were."""
    with transaction() as session:
        found = service.version(session, service.get(session, name), number)
    if found.status != VersionStatus.CURRENT:
        raise Gone("This version was withdrawn; download the current one and its signature.")
    return _signature(name, found)


def _signature(name: str, found: ModelVersion) -> Response:
    path = _store().find_signature(found.digest)
    if path is None:
        raise NotFound("This version was never signed; its operator can: lethe weights sign.")
    return weights.answer_signature(path, f"{name}-{found.number}.safetensors.sig")


def _download(name: str, found: ModelVersion, if_none_match: str | None) -> Response:
    path = _store().find(found.digest)
    if path is None:
        raise StorageFailed("The artifact store lacks the weights of this version.")
    file_name = f"{name}-{found.number}.safetensors"
    return weights.answer(path, found.digest, file_name, if_none_match)


def _describe(
    session: Session, found: ModelVersion, model: RegisteredModel
) -> schemas.VersionAnswer:
    chain = service.lineage(session, found)
    return schemas.describe_versions(model.name, chain, plans.plan(session, [found]))[-1]


def _keep(file: Incoming) -> Stored:
    with transaction() as session:
        # A large file takes a while to become durable, and no purge of the same bytes may begin
        # meanwhile: what it removed would come back.
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        lock_file(session, file.digest, shared=True)
        withdrawn.refuse(session, file.digest)
        return file.keep()


def _store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)
