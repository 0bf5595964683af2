"""∇τ where memory ran out: a step takes no more records than the job still allows."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from lethe.policy import NablaTauOptions
from tests.workers.unlearning.conftest import Classifier
from workers.unlearning.nabla_tau import NablaTau


@dataclass
class Weighed(Classifier):
    """Knows the sizes of the batches that gradients were asked for."""

    sizes: list[int] = field(default_factory=list)

    def losses(self, model, batch):
        if torch.is_grad_enabled():
            self.sizes.append(len(batch[1]))
        return super().losses(model, batch)


@pytest.mark.parametrize("mode", ["validation", "per_sample"])
@pytest.mark.parametrize("largest", [None, 7])
def test_no_batch_is_larger_than_the_context_allows(trained, context, mode, largest):
    recipe = Weighed()
    options = NablaTauOptions(targets=mode, epochs=1)
    targets = torch.full((120,), 5.0, dtype=torch.float64) if mode == "per_sample" else None
    given = replace(context(recipe), targets=targets, largest_batch=largest)
    unlearned = NablaTau(options).unlearn(
        trained.model(), trained.forget, trained.retain, trained.holdout, given
    )
    assert (max(recipe.sizes) == 7) is (largest == 7)
    # All records are visited all the same, in more steps.
    assert sum(recipe.sizes) >= 2 * 120
    assert (unlearned.evidence["forget_batch"] == 7) is (largest == 7)
