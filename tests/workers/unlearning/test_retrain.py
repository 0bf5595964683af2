import pytest
import torch
from torch.utils.data import Subset

from lethe.recipe import CannotTrain
from workers.unlearning.errors import Cancelled, EmptySet, NotFinite
from workers.unlearning.retrain import Retrain


def test_parent_and_forgotten_records_do_not_influence_the_result(trained, context):
    other = trained.model()
    for parameter in other.parameters():
        parameter.data.fill_(float("nan"))
    some = Subset(trained.forget, range(3))
    states = [
        Retrain()
        .unlearn(model, forget, trained.retain, trained.holdout, context(trained.recipe))
        .state
        for model, forget in ((trained.model(), trained.forget), (other, some))
    ]
    for name in trained.state:
        assert torch.equal(states[0][name], states[1][name])


def test_result_is_what_the_recipe_trains_on_the_retained_records(trained, context):
    recipe = trained.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = recipe.build_model()
        recipe.train(expected, trained.retain, 11)
    unlearned = Retrain().unlearn(
        trained.model(), trained.forget, trained.retain, trained.holdout, context(recipe, seed=11)
    )
    assert unlearned.guarantee == "exact"
    for name, tensor in expected.state_dict().items():
        assert torch.equal(unlearned.state[name], tensor)


def test_recipe_without_train_cannot_retrain(regression, context):
    data = regression.training_data()
    with pytest.raises(CannotTrain):
        Retrain().unlearn(regression.build_model(), data, data, data, context(regression))


def test_nothing_to_retain_is_refused(trained, context):
    with pytest.raises(EmptySet, match="retain"):
        Retrain().unlearn(
            trained.model(),
            trained.forget,
            Subset(trained.retain, []),
            trained.holdout,
            context(trained.recipe),
        )


@pytest.mark.parametrize("patience", [0, 1])
def test_cancellation_takes_effect_before_and_after_training(trained, context, patience):
    with pytest.raises(Cancelled):
        Retrain().unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe, patience=patience),
        )


def test_diverged_training_is_refused(trained, context, monkeypatch):
    def diverge(self, model, dataset, seed):
        next(model.parameters()).data[0, 0] = float("inf")

    monkeypatch.setattr(type(trained.recipe), "train", diverge)
    with pytest.raises(NotFinite, match="weight"):
        Retrain().unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe),
        )
