"""The models of a run and the records that they were trained on."""

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from zlib import crc32

import torch

from tests.chaos.client import Client, NoAnswer
from tests.chaos.recipe import LATE_RECORDS, LONG_RECORDS, Late, sample_id
from workers.artifacts import dump_state

QUICK, EXACT, CLIMBING, LONG = "chaos-quick", "chaos-exact", "chaos-climbing", "chaos-long"
COMMON = (QUICK, EXACT, CLIMBING)
LATE_RECIPE = "chaos-late"
MOST_COMMON = 4000
CALM_RECORDS = 3
# Nothing to prove: what a verdict is worth is tested elsewhere, and here many jobs are to go by.
LENIENT = {"leak_margin": 0.5, "leak_left": 1.0, "utility_budget": 100.0, "confidence": 0.999}
BASE: Mapping[str, Any] = {
    "batching": {"max_wait": 0.2, "max_samples": 8},
    "options": {"nabla_tau": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01}},
    "bounds": LENIENT,
    "references": {"count": 0},
    "debt": {"max_share": 1.0, "max_drift": 1000.0},
}
POLICIES: Mapping[str, Mapping[str, Any]] = {
    # In debt after some jobs, so that rebases come in between.
    QUICK: {**BASE, "ladder": ["nabla_tau", "retrain"], "debt": {"max_share": 0.02}},
    EXACT: {**BASE, "ladder": ["retrain"]},
    # The margin is too narrow for a few records: the first method never passes.
    CLIMBING: {
        **BASE,
        "ladder": ["nabla_tau", "retrain"],
        "bounds": {**LENIENT, "leak_margin": 0.01},
    },
    LONG: {**BASE, "ladder": ["retrain"]},
    LATE_RECIPE: {**BASE, "ladder": ["nabla_tau", "retrain"]},
}


@dataclass(frozen=True, slots=True)
class World:
    """The population: common records, and those of the model that takes long."""

    mark: str
    """What every sample ID of the run begins with, and no byte that is written may hold."""
    common: int
    canary: str = field(default_factory=lambda: f"CANARY-{secrets.token_hex(8)}")
    """Stands in a field that is stored as it is."""

    @classmethod
    def drawn(cls, kills: int) -> Self:
        """Return a world of its own, with enough records for a run of so many kills."""
        return cls(f"MARK-{secrets.token_hex(8)}", min(MOST_COMMON, 400 + 8 * kills))

    def some_ids(self) -> list[str]:
        """Return a few sample IDs, to be searched for as what they might be hashed to."""
        return [sample_id(self.mark, index) for index in (0, 1, self.common)]

    def common_id(self, draw: random.Random) -> str:
        """Draw a record that several models hold; those of late models more often."""
        bound = LATE_RECORDS if draw.random() < 0.1 else self.common
        return sample_id(self.mark, draw.randrange(bound))

    def long_id(self, draw: random.Random) -> str:
        """Draw a record of the model that takes long."""
        return sample_id(self.mark, self.common + draw.randrange(LONG_RECORDS - CALM_RECORDS))

    def calm_id(self, number: int) -> str:
        """Return a record of that model which nobody asks about before the calm."""
        return sample_id(self.mark, self.common + LONG_RECORDS - CALM_RECORDS + number)

    def unknown_id(self, draw: random.Random) -> str:
        """Draw an ID that no model holds."""
        return f"{self.mark}-x{draw.randrange(10**6):06d}"


def checkpoint(name: str) -> bytes:
    """Return weights for the recipes, which all have the same model; others for each name.

    Those of a version that was withdrawn would not be taken again.
    """
    torch.set_num_threads(1)
    recipe = Late()
    model = recipe.build_model()
    with torch.random.fork_rng(devices=[]):
        recipe.train(model, recipe.training_data(), 0)
    state = model.state_dict()
    return dump_state({**state, "bias": state["bias"] + 1e-3 * crc32(name.encode()) / 2**32})


def register(client: Client, weights: bytes, name: str, recipe: str) -> None:
    """Upload the weights and register a model with them; one that is registered stays so.

    Raises:
        NoAnswer: the service does not take it.

    """
    stored = client.until_answered("POST", "/v1/checkpoints", content=weights)
    if stored is None or not stored.is_success:
        raise NoAnswer(f"POST /v1/checkpoints: {stored and stored.status_code}")
    body = {
        "name": name,
        "recipe": recipe,
        "checkpoint": stored.json()["digest"],
        "policy": POLICIES[recipe],
    }
    answer = client.until_answered("POST", "/v1/models", json=body)
    # 409: an earlier try came through, and its answer did not.
    if answer is None or answer.status_code not in (200, 201, 202, 409):
        raise NoAnswer(f"POST /v1/models: {answer and answer.text}")
