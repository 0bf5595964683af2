"""A model that cannot be used, or weights that are not its own, are named tensor by tensor."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lethe.recipe import Recipe
from tests.workers.faulty_recipes import (
    MARK,
    Tiny,
    codes,
    failing,
    ids,
    message,
    problems,
    squared,
    state_of,
    variant,
)
from workers.recipe_checks import check_recipe


def test_a_model_that_cannot_be_built_does_not_hide_the_rest() -> None:
    assert codes(variant(build_model=failing, sample_ids=ids(at0=""))) == [
        "ids.empty",
        "model.build",
    ]


def test_a_model_that_is_no_module_is_named() -> None:
    assert codes(variant(build_model=lambda _: state_of())) == ["model.type"]


def test_one_model_returned_twice_is_named() -> None:
    model = Tiny().build_model()
    assert codes(variant(build_model=lambda _: model)) == ["model.shared"]


def test_another_architecture_on_the_second_call_is_named() -> None:
    widths = iter([1, 2, 1, 2])
    recipe = variant(
        build_model=lambda _: nn.Sequential(
            nn.BatchNorm1d(3), nn.Linear(3, next(widths)), nn.Flatten(0)
        )
    )
    assert codes(recipe) == ["model.varies"]


def test_a_model_whose_parameters_have_no_shape_yet_is_named() -> None:
    recipe = variant(
        build_model=lambda _: nn.Sequential(nn.BatchNorm1d(3), nn.LazyLinear(1), nn.Flatten(0))
    )
    assert "model.state" in codes(recipe)


def test_a_model_that_is_not_on_the_cpu_is_named() -> None:
    def build(_: Recipe) -> nn.Module:
        with torch.device("meta"):
            return Tiny().build_model()

    assert "model.cpu" in codes(variant(build_model=build))


def test_a_device_that_takes_no_model_is_named() -> None:
    found = check_recipe(Tiny(), state_of(), torch.device("cuda:99"))
    assert [problem.code for problem in found] == ["model.device"]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("weights.missing", lambda s: s.pop("1.weight")),
        ("weights.unexpected", lambda s: s.update(extra=torch.zeros(1))),
        ("weights.shape", lambda s: s.update({"1.weight": torch.zeros(1, 4)})),
        ("weights.dtype", lambda s: s.update({"1.weight": s["1.weight"].double()})),
        ("weights.finite", lambda s: s["1.bias"].fill_(torch.nan)),
        ("weights.finite", lambda s: s["0.running_var"].fill_(torch.inf)),
    ],
)
def test_a_fault_of_the_weights_is_named_alone_and_the_losses_are_still_checked(
    code: str, change: Callable[[dict[str, Tensor]], Any]
) -> None:
    state = state_of()
    change(state)
    assert codes(Tiny(), state) == [code]
    assert codes(variant(losses=failing), state) == [code, "losses.run", "metric.run"]


def test_a_state_that_the_module_itself_refuses_is_named() -> None:
    class Refusing(nn.Sequential):
        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            failing()

    recipe = variant(
        build_model=lambda _: Refusing(nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))
    )
    assert codes(recipe) == ["weights.load"]


def test_tensors_are_listed_with_both_shapes_up_to_ten_of_them() -> None:
    wide = {"1.weight": torch.zeros(1, 4)}
    assert "1.weight ((1, 4) for (1, 3))" in message(Tiny(), state_of() | wide)
    extra = {f"x{index:02d}": torch.zeros(1) for index in range(13)}
    assert message(Tiny(), state_of() | extra) == (
        "13 tensors of the checkpoint are unexpected: "
        + ", ".join(f"x{index:02d}" for index in range(10))
        + " and 3 more"
    )


def test_a_parameter_named_after_a_sample_is_counted_and_not_shown() -> None:
    extra = {f"person.{MARK}-3.bias": torch.zeros(1), f"{MARK}-4": torch.zeros(1)}
    assert "are unexpected: (withheld), (withheld)" in message(Tiny(), state_of() | extra)
    wide = {"1.weight": torch.zeros(1, 4)}
    recipe = variant(sample_ids=ids(at0="weight"))
    assert "weight" not in message(recipe, state_of() | wide).removeprefix("1 tensors")


def test_a_check_leaves_the_callers_weights_as_they_were() -> None:
    state = state_of()
    before = {name: tensor.clone() for name, tensor in state.items()}
    assert problems(variant(losses=lambda _, m, b: squared(_, m.train(), b)), state)
    assert all(torch.equal(before[name], state[name]) for name in before)
