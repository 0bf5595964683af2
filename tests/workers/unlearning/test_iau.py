import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lethe.policy import IauOptions
from workers.unlearning.iau import Iau


def official(model, retain, forget, learning_rate):
    """What the authors' script does: two full batches, the second negated, one step of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    criterion = nn.CrossEntropyLoss()
    for data, sign in ((retain, 1), (forget, -1)):
        for x, y in DataLoader(data, batch_size=len(data)):
            (sign * criterion(model(x), y)).backward()
    optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("learning_rate", [1e-3, 0.05])
def test_step_is_that_of_the_authors_script(trained, context, learning_rate):
    unlearned = Iau(IauOptions(learning_rate=learning_rate)).unlearn(
        trained.model(), trained.forget, trained.retain, trained.holdout, context(trained.recipe)
    )
    expected = official(trained.model(), trained.retain, trained.forget, learning_rate)
    assert unlearned.guarantee == "approximate"
    assert unlearned.state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(unlearned.state[name], tensor, rtol=1e-9, atol=1e-12)


def test_step_goes_by_the_learning_rate_against_the_sign_of_the_gradient(regression, context):
    data = regression.training_data()
    forget, retain = (torch.utils.data.Subset(data, part) for part in (range(5), range(5, 25)))
    model = regression.build_model()
    w = model.weight.detach().clone().squeeze(0)

    def gradient(part):
        X, y = data.tensors[0][list(part.indices)], data.tensors[1][list(part.indices)]
        return 2 / len(y) * X.T @ (X @ w - y)

    g = gradient(retain) - gradient(forget)
    unlearned = Iau(IauOptions()).unlearn(model, forget, retain, data, context(regression))
    torch.testing.assert_close(
        unlearned.state["weight"].squeeze(0) - w, -1e-3 * g / (g.abs() + 1e-8), rtol=1e-9, atol=0
    )
    assert unlearned.evidence["step_norm"] == pytest.approx(1e-3 * 3**0.5, rel=1e-6)


def test_batch_statistics_and_mode_do_not_enter(trained_with_batch_norm, context):
    one = trained_with_batch_norm
    states = [
        Iau(IauOptions())
        .unlearn(model, one.forget, one.retain, one.holdout, context(one.recipe))
        .state
        for model in (one.model().train(), one.model().eval())
    ]
    for name in one.state:
        assert torch.equal(states[0][name], states[1][name])
    assert torch.equal(states[0]["1.running_mean"], one.state["1.running_mean"])


def test_forget_loss_rises(trained, context):
    evidence = (
        Iau(IauOptions(learning_rate=1e-2))
        .unlearn(
            trained.model(),
            trained.forget,
            trained.retain,
            trained.holdout,
            context(trained.recipe),
        )
        .evidence
    )
    assert evidence["forget_loss"]["after"] > 1.05 * evidence["forget_loss"]["before"]
