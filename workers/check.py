"""Check a registered model: find its recipe, hold its weights against it, take in its manifest."""

from datetime import timedelta
from uuid import UUID

import structlog

from app.artifacts import ArtifactStore
from app.commitments import Manifest, commit
from app.crash_points import CrashPoint, reach
from app.db import transaction
from app.errors import LeaseLost
from app.privacy import key_id
from app.registry import checking
from app.settings import settings
from workers import failures, signing
from workers.artifacts import Corrupted, load_state
from workers.data import sample_digests
from workers.derived import nudge_derived
from workers.device import set_up_device
from workers.heartbeat import Heartbeat
from workers.recipe_checks import check_recipe
from workers.recipes import Problem, UnknownRecipe, data_fingerprint, find_recipe
from workers.stopping import Stopping, interruptible

log = structlog.get_logger()


def check(model_id: UUID) -> None:
    """Make a model ready or reject it with all its problems, if it still waits for that."""
    lease = settings().lease
    with transaction() as session:
        to_check = checking.start_check(session, model_id, lease)
    if to_check is None:
        return
    log.info("model.check_started", model=str(model_id), attempt=to_check.attempt)

    def renew(_: object) -> None:
        _renew(to_check, lease)

    try:
        with Heartbeat(renew, lease, f"model {model_id}"), interruptible():
            _check(to_check)
    except Stopping:
        log.warning("model.check_released", model=str(model_id))
        _renew(to_check, None)
    except LeaseLost:
        log.warning("model.check_superseded", model=str(model_id))
    except Exception as error:  # noqa: BLE001  # a worker outlives whatever a recipe does
        log.error("model.check_failed", model=str(model_id), error=failures.describe(error))
        _give_up(to_check, failures.describe(error))


def _check(to_check: checking.ToCheck) -> None:
    store = ArtifactStore(settings().artifacts_folder)
    path = store.find(to_check.checkpoint_digest)
    problems: list[Problem] = []
    recipe = state = None
    try:
        recipe = find_recipe(to_check.recipe)
    except UnknownRecipe as error:
        problems.append(error.problem)
    try:
        if path is None:
            raise Corrupted("the artifact store lacks it; upload it again")
        state = load_state(path, to_check.checkpoint_digest)
    except Corrupted as error:
        problems.append(Problem("checkpoint.unusable", f"checkpoint: {error}"))
    if recipe is not None and state is not None:
        problems += check_recipe(recipe, state, set_up_device())
    if problems or recipe is None or path is None:
        _reject(to_check, problems)
        return
    signing.sign(store, to_check.checkpoint_digest)
    digests = sample_digests(recipe, settings().required_id_key())
    with transaction() as session:
        checking.replace_manifest(session, to_check, digests)
    manifest = Manifest(to_check.model_id, digests, frozenset())
    found = checking.Found(
        sample_count=len(digests),
        data_fingerprint=data_fingerprint(digests),
        id_key_id=key_id(settings().required_id_key()),
        size_bytes=path.stat().st_size,
        can_train=recipe.can_train,
        commitment=commit(manifest),
    )
    with transaction() as session:
        checking.accept(session, to_check, found)
        reach(CrashPoint.CHECK_BEFORE_ACCEPT)
    log.info("model.ready", model=str(to_check.model_id), samples=len(digests))
    nudge_derived(to_check.model_id)


def _reject(to_check: checking.ToCheck, problems: list[Problem]) -> None:
    with transaction() as session:
        checking.reject(session, to_check, [problem.as_json() for problem in problems])
    log.info(
        "model.rejected",
        model=str(to_check.model_id),
        problems=[problem.code for problem in problems],
    )


def _give_up(to_check: checking.ToCheck, error: str) -> None:
    if to_check.attempt >= settings().job_attempts:
        message = f"gave up after {to_check.attempt} attempts: {error}"
        _reject(to_check, [Problem("check.failed", message)])
    else:
        _renew(to_check, None)


def _renew(to_check: checking.ToCheck, lease: timedelta | None) -> None:
    with transaction() as session:
        checking.renew_check(session, to_check, lease)
