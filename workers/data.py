"""Split a recipe's data for one job, by the digests of its sample IDs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Subset

from app.privacy import digest_sample_id, key_id
from app.settings import settings
from lethe.recipe import MapDataset, Recipe
from workers.recipes import data_fingerprint

# Fixed, so that every job of a model is judged on the same records.
HOLDOUT_SPLIT_SEED = 0


class DataChanged(Exception):
    """The recipe's data are not those that the model was registered with."""


@dataclass(frozen=True, slots=True)
class Split:
    """One job's view of a recipe's data.

    The holdout is halved: methods may look at ``validation``, and ``judging`` is kept from them,
    so that nothing is verified on what it was fitted to.
    """

    forget: MapDataset
    forget_digests: tuple[bytes, ...]
    """The keyed digests of the forget set's records, in its order."""
    retain: MapDataset
    validation: MapDataset
    judging: MapDataset
    judging_positions: tuple[int, ...]
    """Where the judging half's records stand in the holdout data."""


def sample_digests(recipe: Recipe, id_key: bytes) -> list[bytes]:
    """Return the keyed digest of each training record, in the order of the data."""
    return [digest_sample_id(id_key, sample_id) for sample_id in recipe.sample_ids()]


def id_key_of(id_key_id: str) -> bytes:
    """Return this worker's key of sample digests, if a model was registered under that one.

    Raises:
        DataChanged: it is another one, so that no stored digest could be matched.

    """
    id_key = settings().required_id_key()
    if key_id(id_key) != id_key_id:
        raise DataChanged(
            f"the model was registered under {id_key_id} and LETHE_ID_KEY is {key_id(id_key)}"
        )
    return id_key


def registered_digests(recipe: Recipe, id_key: bytes, fingerprint: str) -> list[bytes]:
    """Return ``sample_digests``, if they are those that a model was registered with.

    Raises:
        DataChanged: the recipe has other samples, or another order, than at registration.

    """
    digests = sample_digests(recipe, id_key)
    if data_fingerprint(digests) != fingerprint:
        raise DataChanged(
            "the recipe's sample IDs or their order changed since the model was registered; "
            "restore them, or register the model anew"
        )
    return digests


def split(
    recipe: Recipe,
    id_key: bytes,
    fingerprint: str,
    forget: frozenset[bytes],
    forgotten: frozenset[bytes],
) -> Split:
    """Return the data of a job; what was forgotten before is in no part of it.

    Raises:
        DataChanged: the recipe has other samples, or another order, than at registration.

    """
    digests = registered_digests(recipe, id_key, fingerprint)
    data = recipe.training_data()
    gone = forget | forgotten
    to_forget = [index for index, digest in enumerate(digests) if digest in forget]
    to_retain = [index for index, digest in enumerate(digests) if digest not in gone]
    validation, judging = halve(recipe.holdout_data())
    return Split(
        forget=_subset(data, to_forget),
        forget_digests=tuple(digests[index] for index in to_forget),
        retain=_subset(data, to_retain),
        validation=validation,
        judging=judging,
        judging_positions=tuple(judging.indices),
    )


def halve(holdout: MapDataset) -> tuple[Subset[Any], Subset[Any]]:
    """Return two random halves of the holdout data, the same ones each time."""
    generator = torch.Generator().manual_seed(HOLDOUT_SPLIT_SEED)
    order = torch.randperm(len(holdout), generator=generator).tolist()
    middle = len(order) // 2
    return _subset(holdout, sorted(order[:middle])), _subset(holdout, sorted(order[middle:]))


def _subset(data: MapDataset, indices: list[int]) -> Subset[Any]:
    return Subset(data, indices)  # type: ignore[arg-type]  # a MapDataset is all that it asks for
