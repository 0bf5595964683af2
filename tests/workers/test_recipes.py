"""Each fault of a recipe is named, alone and together with all others, and no sample ID ever is."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lethe.recipe import MapDataset, Recipe
from workers.recipe_checks import check_recipe
from workers.recipes import (
    BrokenRecipe,
    Problem,
    UnknownRecipe,
    data_fingerprint,
    find_recipe,
    installed_recipes,
)

torch.set_num_threads(1)

MARK = "patient-7f3a-marked"
"""Part of every sample ID below; must not be part of any message."""

CPU = torch.device("cpu")
RECORDS = 12


def records(count: int = RECORDS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(3, generator=generator), torch.randn((), generator=generator))
        for _ in range(count)
    ]


class Tiny(Recipe):
    """Linear regression with a batch norm, so that eval mode matters; nothing wrong with it."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Flatten(0))

    def training_data(self) -> MapDataset:
        return records()

    def sample_ids(self) -> list[Any]:
        return [f"{MARK}-{index}" for index in range(RECORDS)]

    def holdout_data(self) -> MapDataset:
        return records(5)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch[0]) - batch[1]) ** 2


def state_of(recipe: Recipe | None = None) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in (recipe or Tiny()).build_model().state_dict().items()}


def variant(**methods: Any) -> Recipe:
    """Return a Tiny with some methods replaced."""
    return type("Variant", (Tiny,), {"__module__": __name__, **methods})()


def problems(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> list[Problem]:
    """Check, and hold every message to the privacy rule whatever the test is about."""
    found = check_recipe(recipe, state_of() if state is None else state, CPU)
    assert MARK not in json.dumps([problem.as_json() for problem in found])
    return found


def codes(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> list[str]:
    return [problem.code for problem in problems(recipe, state)]


def message(recipe: Recipe, state: Mapping[str, Tensor] | None = None) -> str:
    (problem,) = problems(recipe, state)
    return problem.message


def failing(*_: Any) -> Any:
    raise KeyError(f"{MARK}-3")


def ids(**changed: Any) -> Callable[[Any], list[Any]]:
    """Return a sample_ids method in which some positions, ``at3=…``, hold something else."""
    whole: list[Any] = [f"{MARK}-{index}" for index in range(RECORDS)]
    for position, value in changed.items():
        whole[int(position.removeprefix("at"))] = value
    return lambda _: whole


def test_nothing_is_wrong_with_a_good_recipe() -> None:
    assert problems(Tiny()) == []


# --- sample IDs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "method"),
    [
        ("ids.read", failing),
        ("ids.sequence", lambda _: "a" * RECORDS),
        ("ids.sequence", lambda _: None),
        ("ids.sequence", lambda _: (f"{MARK}-{index}" for index in range(RECORDS))),
        ("ids.sequence", lambda _: {f"{MARK}-{index}": index for index in range(RECORDS)}),
        ("ids.type", ids(at3=17)),
        ("ids.type", ids(at3=MARK.encode())),
        ("ids.empty", ids(at3="")),
        ("ids.long", ids(at3=MARK + "é" * 128)),
        ("ids.nul", ids(at3=MARK + "\0")),
        ("ids.surrogate", ids(at3=MARK + "\ud83d")),
        ("ids.duplicate", ids(at3=f"{MARK}-4")),
        ("ids.count", lambda _: [f"{MARK}-{index}" for index in range(RECORDS - 1)]),
    ],
)
def test_a_fault_of_the_sample_ids_is_named_alone(code: str, method: Any) -> None:
    assert codes(variant(sample_ids=method)) == [code]


def test_an_id_of_exactly_256_bytes_is_fine() -> None:
    assert codes(variant(sample_ids=ids(at3="é" * 128))) == []


def test_ids_in_a_new_order_each_time_are_noticed() -> None:
    calls = iter(range(100))
    method = lambda _: [f"{MARK}-{(index + next(calls)) % 9}-{index}" for index in range(RECORDS)]  # noqa: E731
    assert codes(variant(sample_ids=method)) == ["ids.order"]


def test_faulty_ids_are_counted_and_their_positions_listed_up_to_ten() -> None:
    assert message(variant(sample_ids=lambda _: [""] + [f"{MARK}{i}" for i in range(11)])) == (
        "1 sample IDs are empty; at index 0"
    )
    numbers = variant(sample_ids=lambda _: list(range(12)))
    assert message(numbers) == (
        "12 sample IDs are not str; at index 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    )


def test_duplicates_are_counted_beyond_the_first_of_each() -> None:
    repeated = [f"{MARK}-{index % 5}" for index in range(RECORDS)]
    assert message(variant(sample_ids=lambda _: repeated)).startswith("7 sample IDs repeat")


# --- model and weights --------------------------------------------------------------------------


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


# --- data ---------------------------------------------------------------------------------------


class Broken:
    """A dataset that has a length and no readable record."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Any:
        return failing()


class Endless:
    """A dataset without a length."""

    def __len__(self) -> int:
        return int(failing())

    def __getitem__(self, index: int) -> Any:
        return records()[index % RECORDS]


class Noisy:
    """A dataset that augments what it reads."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Any:
        image, label = records()[index]
        return image + torch.randn(3), label


@pytest.mark.parametrize(
    ("expected", "methods"),
    [
        (["data.read"], {"training_data": failing}),
        (["data.read"], {"holdout_data": failing}),
        (["data.length"], {"training_data": lambda _: Endless()}),
        (["data.empty", "ids.count"], {"training_data": lambda _: []}),
        (["data.empty"], {"holdout_data": lambda _: []}),
        (["data.items"], {"training_data": lambda _: Broken()}),
        (["data.order"], {"training_data": lambda _: Noisy()}),
        (["batch_size"], {"batch_size": 0, "metric": lambda *_: 1.0}),
        (["batch_size"], {"batch_size": "64", "metric": lambda *_: 1.0}),
    ],
)
def test_a_fault_of_the_data_is_named_alone(expected: list[str], methods: dict[str, Any]) -> None:
    assert codes(variant(**methods)) == expected


def test_an_empty_holdout_does_not_hide_a_broken_metric() -> None:
    assert codes(variant(holdout_data=lambda _: [], metric=failing)) == [
        "data.empty",
        "metric.run",
    ]


def test_a_dataset_shuffled_at_each_call_is_noticed() -> None:
    calls = iter(range(1, 100))

    def shuffled(_: Recipe) -> MapDataset:
        shift = next(calls)
        return [records()[(index + shift) % RECORDS] for index in range(RECORDS)]

    assert codes(variant(training_data=shuffled)) == ["data.order"]


def test_nested_records_with_missing_values_count_as_the_same_when_they_are() -> None:
    def nested(_: Recipe) -> MapDataset:
        return [
            {"x": x, "more": (float("nan"), ["text", torch.tensor(float("nan"))]), "y": y}
            for x, y in records()
        ]

    recipe = variant(
        training_data=nested,
        holdout_data=nested,
        losses=lambda _, model, batch: (model(batch["x"]) - batch["y"]) ** 2,
    )
    assert codes(recipe) == []


def test_a_collate_that_was_not_made_static_is_named() -> None:
    def collate(items: list[Any]) -> Any:
        return torch.utils.data.default_collate(items)

    found = problems(variant(collate=collate, metric=lambda *_: 1.0))
    assert {problem.code for problem in found} == {"data.batch"}
    assert "staticmethod" in found[0].message
    assert codes(variant(collate=staticmethod(collate))) == []


# --- losses, entropies, metric ------------------------------------------------------------------


def squared(_: Recipe, model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2


@pytest.mark.parametrize(
    ("code", "losses"),
    [
        ("losses.run", failing),
        ("losses.type", lambda *a: squared(*a).tolist()),
        ("losses.shape", lambda *a: squared(*a).mean()),
        ("losses.shape", lambda *a: squared(*a).unsqueeze(1)),
        ("losses.shape", lambda *a: squared(*a).squeeze()),
        ("losses.finite", lambda *a: squared(*a) + torch.inf),
        ("losses.gradient", lambda *a: squared(*a).detach()),
        ("losses.gradient", lambda *a: a[2][0].sum(dim=1).requires_grad_()),
        ("losses.gradient_finite", lambda *a: (squared(*a) * 0).sqrt()),
        ("losses.companions", lambda *a: squared(*a) / len(a[2][1])),
        ("losses.companions", lambda *a: squared(*a) / squared(*a).detach().sum()),
        ("losses.run", lambda _, m, b: squared(_, m.train(), b)),
        ("losses.companions", lambda *a: F.dropout(squared(*a) + 1, 0.5)),
    ],
)
def test_a_fault_of_the_losses_is_named_alone(code: str, losses: Any) -> None:
    torch.manual_seed(0)
    assert codes(variant(losses=losses, metric=lambda *_: 1.0)) == [code]


def test_losses_that_are_integers_have_no_gradient_either() -> None:
    recipe = variant(losses=lambda *a: squared(*a).long(), metric=lambda *_: 1.0)
    assert codes(recipe) == ["losses.gradient", "losses.dtype"]


def test_a_loss_that_cannot_be_differentiated_is_named() -> None:
    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *__: Tensor) -> Any:
            failing()

    recipe = variant(losses=lambda *a: OneWay.apply(squared(*a)))
    assert codes(recipe) == ["losses.backward"]


def test_a_model_without_trainable_parameters_is_named() -> None:
    recipe = variant(build_model=lambda _: Tiny().build_model().requires_grad_(False))
    assert codes(recipe) == ["losses.gradient"]


@pytest.mark.parametrize(
    ("dtype", "relative_error", "expected"),
    [
        (torch.float64, 1e-4, []),  # as the rounding of TF32
        (torch.float64, 2e-2, ["losses.companions"]),
        (torch.bfloat16, 2e-2, []),  # three of its roundings
        (torch.bfloat16, 5e-1, ["losses.companions"]),
    ],
)
def test_rounding_is_not_taken_for_companions(
    dtype: torch.dtype, relative_error: float, expected: list[str]
) -> None:
    def losses(_: Recipe, model: nn.Module, batch: Any) -> Tensor:
        exact = (model(batch[0].to(dtype)) - batch[1].to(dtype)) ** 2 + 10
        return exact * (1 + relative_error) if len(exact) == 1 else exact

    recipe = variant(build_model=lambda _: Tiny().build_model().to(dtype), losses=losses)
    assert codes(recipe, state_of(recipe)) == expected


@pytest.mark.parametrize(
    ("code", "entropies"),
    [
        ("entropies.run", failing),
        ("entropies.type", lambda *_: 0.5),
        ("entropies.shape", lambda *a: torch.zeros(len(a[2][1]), 1)),
        ("entropies.dtype", lambda *a: torch.zeros(len(a[2][1]), dtype=torch.int64)),
        ("entropies.finite", lambda *a: torch.full((len(a[2][1]),), torch.nan)),
    ],
)
def test_a_fault_of_the_entropies_is_named_alone(code: str, entropies: Any) -> None:
    assert codes(variant(entropies=entropies)) == [code]


def test_entropies_of_the_right_shape_are_fine() -> None:
    assert codes(variant(entropies=lambda *a: torch.ones(len(a[2][1])))) == []


@pytest.mark.parametrize(
    ("code", "metric"),
    [
        ("metric.run", failing),
        ("metric.run", lambda *_: None),
        ("metric.finite", lambda *_: float("nan")),
        ("metric.finite", lambda *_: float("-inf")),
    ],
)
def test_a_fault_of_the_metric_is_named_alone(code: str, metric: Any) -> None:
    assert codes(variant(metric=metric)) == [code]


# --- all of it ----------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once() -> None:
    faulty: list[Any] = [f"{MARK}-0"] * 3 + ["", 5, MARK * 20, MARK + "\0", MARK + "\ud800"]
    calls = iter(range(100))
    recipe = variant(
        sample_ids=lambda _: [*faulty, f"{MARK}-{next(calls)}"],
        training_data=lambda _: Noisy(),
        holdout_data=lambda _: [],
        losses=lambda *a: squared(*a).detach().unsqueeze(1) / 0,
        entropies=lambda *_: torch.zeros(2, 2, dtype=torch.int64),
        metric=lambda *_: float("nan"),
        batch_size=-1,
    )
    state = state_of()
    del state["1.bias"]
    state |= {
        "1.weight": torch.zeros(9),
        "0.weight": torch.full((3,), torch.nan, dtype=torch.float64),
        "extra": torch.zeros(1),
    }
    assert sorted(codes(recipe, state)) == [
        "batch_size",
        "data.empty",
        "data.order",
        "entropies.dtype",
        "entropies.shape",
        "ids.count",
        "ids.duplicate",
        "ids.empty",
        "ids.long",
        "ids.nul",
        "ids.order",
        "ids.surrogate",
        "ids.type",
        "losses.finite",
        "losses.gradient",
        "losses.shape",
        "metric.finite",
        "weights.dtype",
        "weights.finite",
        "weights.missing",
        "weights.shape",
        "weights.unexpected",
    ]


def test_when_every_method_raises_each_is_named_once() -> None:
    names = ("sample_ids", "training_data", "holdout_data", "build_model", "losses", "metric")
    found = problems(variant(**dict.fromkeys(names, failing)))
    assert [problem.code for problem in found] == [
        "ids.read",
        "model.build",
        "data.read",
        "data.read",
    ]


def test_an_exception_is_reported_by_type_and_place_without_its_message() -> None:
    line = failing.__code__.co_firstlineno + 1
    found = problems(variant(sample_ids=failing))
    assert found == [
        Problem("ids.read", f"sample_ids() raised KeyError at tests/workers/test_recipes.py:{line}")
    ]


def test_the_place_is_the_innermost_line_of_the_users_package() -> None:
    line = failing.__code__.co_firstlineno + 1
    found = problems(variant(sample_ids=lambda recipe: failing(recipe)))
    assert found[0].message.endswith(f"tests/workers/test_recipes.py:{line}")


def test_the_place_is_the_users_own_line_when_a_library_raises() -> None:
    def losses(_: Recipe, model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0].unsqueeze(0).unsqueeze(0))  # type: ignore[no-any-return]

    line = losses.__code__.co_firstlineno + 1
    found = problems(variant(losses=losses, metric=lambda *_: 1.0))
    assert found[0].message == (
        f"losses() raised ValueError at tests/workers/test_recipes.py:{line}"
    )


def test_a_recipe_that_exits_does_not_take_the_worker_with_it() -> None:
    def leave(_: Recipe) -> Any:
        raise SystemExit(MARK)

    assert codes(variant(training_data=leave)) == ["data.read"]


def test_a_check_leaves_the_callers_weights_as_they_were() -> None:
    state = state_of()
    before = {name: tensor.clone() for name, tensor in state.items()}
    assert problems(variant(losses=lambda _, m, b: squared(_, m.train(), b)), state)
    assert all(torch.equal(before[name], state[name]) for name in before)


# --- finding ------------------------------------------------------------------------------------

PACKAGE = f"""
from lethe.recipe import Recipe

class Good(Recipe):
    def build_model(self): ...
    def training_data(self): ...
    def sample_ids(self): ...
    def holdout_data(self): ...
    def losses(self, model, batch): ...

class Failing(Good):
    def __init__(self):
        raise RuntimeError("{MARK}")

class Unfinished(Recipe):
    pass

ready = Good()
number = 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that lays out an installed package as pip would."""
    (tmp_path / "acme_recipes.py").write_text(PACKAGE)
    (tmp_path / "acme_broken.py").write_text(f"\nraise ValueError('{MARK}')\n")
    (tmp_path / "acme_syntax.py").write_text(f"{MARK!r} oops\n")

    def lay_out(distribution: str, **entries: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[lethe.recipes]\n{lines}")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield lay_out
    for module in ("acme_recipes", "acme_broken", "acme_syntax"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)


def test_a_recipe_is_found_by_the_name_of_its_entry_point(install: Callable[..., None]) -> None:
    install("acme", good="acme_recipes:Good", ready="acme_recipes:ready")
    assert type(find_recipe("good")).__name__ == "Good"
    assert find_recipe("ready") is find_recipe("ready")
    assert {"good", "ready"} <= set(installed_recipes())


def test_an_unknown_name_lists_the_installed_ones(install: Callable[..., None]) -> None:
    install("acme", good="acme_recipes:Good")
    with pytest.raises(UnknownRecipe) as unknown:
        find_recipe("god")
    assert not isinstance(unknown.value, BrokenRecipe)
    assert unknown.value.problem.code == "recipe.unknown"
    for name in ("'god'", *installed_recipes()):
        assert name in unknown.value.problem.message


def test_a_name_that_two_packages_install_is_refused(install: Callable[..., None]) -> None:
    install("acme-one", good="acme_recipes:Good")
    install("acme-two", good="acme_recipes:Good")
    with pytest.raises(BrokenRecipe) as ambiguous:
        find_recipe("good")
    assert ambiguous.value.problem == Problem(
        "recipe.ambiguous",
        "2 packages install a recipe 'good' (acme-one, acme-two); uninstall all but one",
    )


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ("acme_absent:Good", "recipe.import", "raised ModuleNotFoundError"),
        ("acme_recipes:Absent", "recipe.import", "raised AttributeError"),
        ("acme_broken:Good", "recipe.import", "raised ValueError at acme_broken.py:2"),
        ("acme_syntax:Good", "recipe.import", "raised SyntaxError"),
        ("acme_recipes:Failing", "recipe.construct", "raised RuntimeError at acme_recipes.py:13"),
        ("acme_recipes:Unfinished", "recipe.construct", "raised TypeError"),
        ("acme_recipes:number", "recipe.type", "neither a subclass nor an instance of Recipe"),
    ],
)
def test_an_entry_point_that_is_no_recipe_is_a_problem(
    install: Callable[..., None], value: str, code: str, text: str
) -> None:
    install("acme", thing=value)
    with pytest.raises(BrokenRecipe) as broken:
        find_recipe("thing")
    assert broken.value.problem.code == code
    assert text in broken.value.problem.message
    assert MARK not in f"{broken.value!r}"


# --- the fingerprint ----------------------------------------------------------------------------


def test_the_fingerprint_tells_order_count_and_content_apart() -> None:
    one, two = bytes([1] * 32), bytes([2] * 32)
    lists = [[], [one], [two], [one, two], [two, one], [one, one], [one, two, two]]
    prints = [data_fingerprint(digests) for digests in lists]
    assert len(set(prints)) == len(lists)
    assert data_fingerprint((one, two)) == prints[3]
    assert all(text.startswith("sha256:") and len(text) == 71 for text in prints)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_digests_that_could_run_together_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        data_fingerprint([bytes(32), bytes(length)])
