"""Gradient ledgers as files: summed up after a publication, loaded only where they fit.

A file holds one tensor ``gradient.<parameter>`` for each parameter, float64, beside ``loss`` and
``records``; the prefix keeps a parameter of such a name apart from these two.
"""

import time
from collections.abc import Collection
from uuid import UUID

import structlog
import torch
from torch import Tensor, nn

from app.artifacts import ArtifactStore
from app.db import transaction
from app.derived import leasing, ledger_files, ledgers
from app.derived.ledgers import Kept, ToCompute, retained_fingerprint
from app.errors import LeaseLost, StorageFailed
from app.settings import settings
from app.tables import GradientLedger
from lethe.recipe import Recipe
from workers import failures, signing
from workers.artifacts import Corrupted, digest_of, dump_state, load_state
from workers.data import id_key_of, split
from workers.device import set_up_device
from workers.heartbeat import Heartbeat
from workers.recipes import find_recipe, recipe_fingerprint
from workers.stopping import Stopping, interruptible
from workers.unlearning.contract import Context, require_records
from workers.unlearning.errors import Cancelled, StaleLedger, UnlearningError
from workers.unlearning.gradients import gradient_sum
from workers.unlearning.ledger import GradientSum

log = structlog.get_logger()

PHASE = "sum gradients"
PREFIX = "gradient."
# Draws what a recipe draws in its losses; the same for every ledger.
SEED = 0


def refresh(ledger_id: UUID) -> None:
    """Compute a ledger, if it still waits for a worker; every end of it is written down."""
    lease = settings().lease
    with transaction() as session:
        to_compute = ledgers.claim(session, ledger_id, lease)
    if to_compute is None:
        log.info("ledger.not_waiting", ledger=str(ledger_id))
        return
    log.info("ledger.claimed", ledger=str(ledger_id), attempt=to_compute.claim.attempt)
    if to_compute.claim.attempt > settings().job_attempts:
        with transaction() as session:
            ledgers.fail(session, to_compute, "gave up: each worker that tried it died")
        return

    def renew(_: object) -> None:
        with transaction() as session:
            ledgers.hold(session, to_compute, lease)

    try:
        with Heartbeat(renew, lease, f"ledger {ledger_id}") as heartbeat:
            _refresh(to_compute, heartbeat)
    except Stopping:
        log.warning("ledger.released", ledger=str(ledger_id))
        with transaction() as session:
            leasing.release(session, GradientLedger, to_compute.claim)
    except (LeaseLost, Cancelled):
        log.warning("ledger.superseded", ledger=str(ledger_id), fence=to_compute.claim.fence)
    except Exception as error:  # noqa: BLE001  # a worker outlives whatever a recipe does
        _give_up(to_compute, error)


def load(
    kept: Kept,
    store: ArtifactStore,
    weights_digest: str,
    data_fingerprint: str,
    forgotten: Collection[bytes],
    recipe_fingerprint: str,
) -> GradientSum:
    """Return the sum that is kept, if it is that of exactly these weights, data and recipe.

    Args:
        kept: the ledger.
        store: where its file is.
        weights_digest: of the weights that a step is to start from.
        data_fingerprint: of the data that the model was registered with.
        forgotten: digests of the samples among them that are forgotten already.
        recipe_fingerprint: of the recipe as it is installed.

    Raises:
        StaleLedger: weights, data or recipe are others, or the file is not as it was written.

    """
    retained = retained_fingerprint(data_fingerprint, forgotten)
    others = {
        "weights": kept.weights_digest != weights_digest,
        "data": kept.data_fingerprint != retained,
        "recipe": kept.recipe_fingerprint != recipe_fingerprint,
    }
    if any(others.values()):
        names = ", ".join(name for name, differs in others.items() if differs)
        raise StaleLedger(f"it was computed with other {names}")
    path = store.find(kept.digest)
    if path is None:
        raise StaleLedger("its file is gone")
    try:
        return _parse(load_state(path, kept.digest), kept.records)
    except (Corrupted, OSError, KeyError, ValueError, RuntimeError):
        raise StaleLedger("its file is not as it was written") from None


def remove_void(store: ArtifactStore | None = None) -> int:
    """Delete the files of void ledgers, of the settings' store if none is given; return how many.

    What cannot be deleted keeps its place in the database, and is tried again at the next call.
    """
    store = store or ArtifactStore(settings().artifacts_folder)
    removed = 0
    with transaction() as session:
        found = ledger_files.void_files(session)
    for ledger_id, digest in found:
        try:
            with transaction() as session:
                gone = ledger_files.remove_file(session, ledger_id, store.remove)
        except StorageFailed as error:
            log.error("ledger.not_removed", ledger=str(ledger_id), error=failures.describe(error))
            continue
        if gone:
            log.info("ledger.removed", ledger=str(ledger_id), digest=digest)
            removed += 1
    return removed


def _refresh(to_compute: ToCompute, heartbeat: Heartbeat) -> None:
    started = time.monotonic()
    store = ArtifactStore(settings().artifacts_folder)
    recipe = find_recipe(to_compute.recipe)
    fingerprint = recipe_fingerprint(recipe)
    with interruptible():
        summed = _sum(to_compute, recipe, _load_weights(to_compute, store), heartbeat)
    content = _dump(summed)
    digest = digest_of(content)
    with transaction() as session:
        ledgers.announce(session, to_compute, digest, store.remove)
    with store.incoming() as file:
        file.write(content)
        file.flush()
        with transaction() as session:
            # The claim is held until the file has its name, so that no file comes after its end.
            ledgers.finish(
                session,
                to_compute,
                digest=digest,
                records=summed.records,
                recipe_fingerprint=fingerprint,
                data_fingerprint=retained_fingerprint(
                    to_compute.data_fingerprint, to_compute.forgotten
                ),
                seconds=time.monotonic() - started,
            )
            file.keep()
    log.info("ledger.ready", ledger=str(to_compute.claim.id), records=summed.records)


def _load_weights(to_compute: ToCompute, store: ArtifactStore) -> dict[str, Tensor]:
    path = store.find(to_compute.weights_digest)
    if path is None:
        raise Corrupted(f"the artifact store lacks {to_compute.weights_digest}")
    signing.verify_version(store, to_compute.version_id, to_compute.weights_digest)
    return load_state(path, to_compute.weights_digest)


def _sum(
    to_compute: ToCompute, recipe: Recipe, weights: dict[str, Tensor], heartbeat: Heartbeat
) -> GradientSum:
    id_key = id_key_of(to_compute.id_key_id)
    data = split(
        recipe, id_key, to_compute.data_fingerprint, frozenset(), to_compute.forgotten
    ).retain
    require_records(retain=data)
    context = Context(
        recipe=recipe,
        seed=SEED,
        device=set_up_device(),
        progress=heartbeat.report,
        cancelled=heartbeat.is_lost,
    )
    model: nn.Module = recipe.build_model()
    model.load_state_dict(weights)
    with context.seeded():
        return gradient_sum(
            model.to(context.device).eval(),
            data,
            context,
            lambda fraction: context.progress(PHASE, fraction),
        )


def _dump(summed: GradientSum) -> bytes:
    return dump_state(
        {
            "records": torch.tensor(summed.records, dtype=torch.int64),
            "loss": torch.tensor(summed.loss, dtype=torch.float64),
            **{PREFIX + name: tensor for name, tensor in summed.gradient.items()},
        }
    )


def _parse(tensors: dict[str, Tensor], records: int) -> GradientSum:
    summed, loss = int(tensors.pop("records")), float(tensors.pop("loss"))
    if summed != records or not all(name.startswith(PREFIX) for name in tensors):
        raise ValueError("another ledger's file, or none of a ledger")
    gradient = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return GradientSum(summed, loss, gradient)


def _give_up(to_compute: ToCompute, error: Exception) -> None:
    described = failures.describe(error)
    log.error("ledger.attempt_failed", ledger=str(to_compute.claim.id), error=described)
    try:
        with transaction() as session:
            if isinstance(error, (*failures.PERMANENT, UnlearningError)):
                ledgers.fail(session, to_compute, described)
            else:
                ledgers.give_back(session, to_compute, described, settings().job_attempts)
    except LeaseLost:
        log.warning("ledger.superseded", ledger=str(to_compute.claim.id))
