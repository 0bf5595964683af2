"""What every rung of a job starts from: recipe, parent, data, and what is kept beside them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor, nn

from app.artifacts import ArtifactStore
from app.db import transaction
from app.jobs.leases import Job
from lethe.recipe import Recipe
from workers import ledgers, references, signing
from workers.artifacts import Corrupted, load_state
from workers.data import Split, split
from workers.device import set_up_device
from workers.recipes import find_recipe, recipe_fingerprint
from workers.unlearning.errors import StaleLedger
from workers.unlearning.ledger import GradientSum
from workers.unlearning.nabla_tau_schedule import LARGEST_BATCH
from workers.unlearning.references import Judges
from workers.unlearning.verification import Measurement, measure

log = structlog.get_logger()

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Ground:
    """The common start of a job's rungs."""

    job: Job
    recipe: Recipe
    parent: State
    data: Split
    targets: Tensor | None
    """What each forget record's loss is expected to be, (m,); None without references."""
    judges: Judges | None
    ledger: GradientSum | None
    before: Measurement
    """What the parent shows."""
    device: torch.device

    def model(self, state: State) -> nn.Module:
        """Return the recipe's model with these weights, on the device, in eval mode."""
        model = self.recipe.build_model()
        model.load_state_dict(state)
        return model.to(self.device).eval()

    def measure(self, state: State) -> Measurement:
        """Return what these weights show on the job's data."""
        return _measure(self.recipe, self.model(state), self.data, self.judges, self.job)


@dataclass(frozen=True, slots=True)
class Given:
    """What the repetition of a job has from its record, and does not look for."""

    device: torch.device
    targets: Tensor | None
    judges: Judges | None


def largest_step(job: Job) -> int:
    """Return how many records a method of the job may put into one step, if nothing limits it."""
    chosen = job.policy.options.nabla_tau.batch_size or LARGEST_BATCH
    return max(chosen, find_recipe(job.recipe).batch_size)


def prepare(job: Job, id_key: bytes, store: ArtifactStore, given: Given | None = None) -> Ground:
    """Load and measure what a job starts from.

    Raises:
        SignatureRefused: the parent's weights are not signed as they should be.
        UnknownRecipe, DataChanged, Corrupted: the job cannot be done as things are.
        StorageFailed: what it makes would have no place.

    """
    device = set_up_device() if given is None else given.device
    recipe = find_recipe(job.recipe)
    if job.batch_limit is not None:
        recipe = copy.copy(recipe)  # an installed instance serves other jobs, too
        recipe.batch_size = min(recipe.batch_size, job.batch_limit)
    path = store.find(job.parent_digest)
    if path is None:
        raise Corrupted(f"the artifact store lacks {job.parent_digest}")
    signing.verify_version(store, job.parent_id, job.parent_digest)
    parent = load_state(path, job.parent_digest)
    if given is None:
        store.require_room(path.stat().st_size)
    data = split(recipe, id_key, job.data_fingerprint, job.forget_digests, job.forgotten_digests)
    targets, judges = _expected(job, data) if given is None else (given.targets, given.judges)
    model = recipe.build_model()
    model.load_state_dict(parent)
    before = _measure(recipe, model.to(device).eval(), data, judges, job)
    ledger = _ledger(job, recipe, store) if "iau" in job.ladder else None
    return Ground(job, recipe, parent, data, targets, judges, ledger, before, device)


def _expected(job: Job, data: Split) -> tuple[Tensor | None, Judges | None]:
    if job.reference_set_id is None:
        return None, None
    with transaction() as session:
        expected = references.expected_for(
            session, job.reference_set_id, data.forget_digests, data.judging_positions
        )
    return expected.targets, expected.judges


def _ledger(job: Job, recipe: Recipe, store: ArtifactStore) -> GradientSum | None:
    if job.gradient_ledger is None:
        return None
    try:
        return ledgers.load(
            job.gradient_ledger,
            store,
            weights_digest=job.parent_digest,
            data_fingerprint=job.data_fingerprint,
            forgotten=job.forgotten_digests,
            recipe_fingerprint=recipe_fingerprint(recipe),
        )
    except StaleLedger as error:
        # The step then takes a pass over the retained data, and its evidence says so.
        log.warning("ledger.refused", job=str(job.id), reason=str(error))
        return None


def _measure(
    recipe: Recipe, model: nn.Module, data: Split, judges: Judges | None, job: Job
) -> Measurement:
    confidence = job.policy.bounds.confidence
    return measure(recipe, model, data.forget, data.retain, data.judging, confidence, judges)
