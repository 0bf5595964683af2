import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lethe.restriction import restricted


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield
    torch.set_num_threads(threads)


def least_squares() -> tuple[nn.Linear, Tensor, Tensor]:
    X = torch.randn(9, 3, dtype=torch.float64)
    y = torch.randn(9, dtype=torch.float64)
    return nn.Linear(3, 1).double(), X, y


def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (model(x).squeeze(1) - y).square().mean()


def test_value_and_gradient_are_those_of_least_squares_in_closed_form() -> None:
    model, X, y = least_squares()
    loss = restricted(model, squared(model, X, y), alpha=0.3)
    loss.backward()

    ones = torch.ones(9, 1, dtype=torch.float64)
    theta = torch.cat([model.weight.detach().squeeze(0), model.bias.detach()])
    design = torch.cat([X, ones], dim=1)
    residual = design @ theta - y
    g, H = 2 / 9 * design.T @ residual, 2 / 9 * design.T @ design
    norms = g[:3].norm() + g[3:].norm()  # the weight's and the bias', each its own
    units = torch.cat([g[:3] / g[:3].norm(), g[3:] / g[3:].norm()])
    torch.testing.assert_close(loss.detach(), residual.square().mean() + 0.3 * norms)
    gradient = torch.cat([model.weight.grad.squeeze(0), model.bias.grad])
    torch.testing.assert_close(gradient, g + 0.3 * H @ units)


def test_gradient_is_that_of_finite_differences() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randint(0, 3, (7,))

    def value() -> Tensor:
        return restricted(model, functional.cross_entropy(model(x), y), alpha=0.5)

    value().backward()
    for parameter in model.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(0, len(flat), 3):
            middle, step = flat[index].item(), 1e-5
            sides = []
            for side in (middle + step, middle - step):
                flat[index] = side
                sides.append(value().item())
            flat[index] = middle
            assert gradient[index].item() == pytest.approx(
                (sides[0] - sides[1]) / (2 * step), abs=1e-8
            )


def test_alpha_is_the_papers_by_default_and_none_leaves_the_loss_alone() -> None:
    model, X, y = least_squares()
    plain = squared(model, X, y)
    norms = sum(g.norm() for g in torch.autograd.grad(plain, model.parameters(), retain_graph=True))
    torch.testing.assert_close(restricted(model, plain), plain + 0.005 * norms)
    assert restricted(model, plain, alpha=0.0).item() == plain.item()


def test_gradient_of_zero_gives_no_nan() -> None:
    model, X, _ = least_squares()
    loss = restricted(model, squared(model, X, model(X).detach().squeeze(1)), alpha=1.0)
    loss.backward()
    assert loss.item() == 0
    for parameter in model.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_frozen_and_unused_parameters_take_no_part() -> None:
    model, X, y = least_squares()
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    model.bias.requires_grad_(False)
    plain = squared(model, X, y)
    restricted(model, plain, alpha=1.0).backward()
    assert model.weight.grad is not None
    assert model.bias.grad is None
    assert model.unused.grad is None


def test_training_with_it_lowers_the_largest_gradient_of_any_record() -> None:
    x = torch.randn(48, 6)
    y = (x[:, 0] + torch.randn(48) > 0).long()  # noisy, so that some records are outliers
    fresh = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2))

    def largest(alpha: float) -> float:
        model = deepcopy(fresh)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(15):
            for batch in torch.arange(48).split(4):
                loss = functional.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                (restricted(model, loss, alpha) if alpha else loss).backward()
                optimizer.step()
        norms = []
        for one in torch.arange(48).split(1):
            loss = functional.cross_entropy(model(x[one]), y[one])
            g = torch.autograd.grad(loss, model.parameters())
            norms.append(torch.cat([part.reshape(-1) for part in g]).norm().item())
        return max(norms)

    assert largest(0.3) < 0.9 * largest(0.0)


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import lethe, lethe.policy, lethe.recipe"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
