import pytest
import torch
from torch.utils.data import Dataset

from workers.unlearning.nabla_tau_batches import loader, numbered_loader


class Named(Dataset):
    """Records that say where they are, some of them fetched many at once."""

    def __init__(self, at_once):
        self.fetches = []
        if at_once:
            self.__getitems__ = self.fetch

    def fetch(self, indices):
        self.fetches.append(list(indices))
        return [self[index] for index in indices]

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return {"name": f"number {index}", "value": index}


def _joined(items):
    return "+".join(item["name"] for item in items), torch.tensor([i["value"] for i in items])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("collate", [None, _joined])
def test_positions_stay_with_their_records_through_shuffling_and_collation(
    regression, context, at_once, collate
):
    regression.collate = collate
    data, batches = Named(at_once), []
    make = (numbered_loader, loader)
    numbered, plain = (
        one(data, 5, context(regression), torch.Generator().manual_seed(2)) for one in make
    )
    for _ in range(2):
        for (batch, positions), alone in zip(numbered, plain, strict=True):
            values = batch[1] if collate else batch["value"]
            assert torch.equal(values, positions)
            assert str(batch) == str(alone)  # the same draws, and the recipe's own collation
            batches.append(positions)
    drawn = torch.cat(batches)
    assert sorted(drawn[:23].tolist()) == list(range(23))
    assert drawn[:23].tolist() != sorted(drawn[:23].tolist())
    assert not torch.equal(drawn[:23], drawn[23:])
    assert len(data.fetches) == (20 if at_once else 0)
