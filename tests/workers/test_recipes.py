"""Recipes are found by name, and what they raise is reported without its words."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from lethe.recipe import Recipe
from tests.workers.faulty_recipes import MARK, problems, variant
from workers.recipes import (
    BrokenRecipe,
    Problem,
    UnknownRecipe,
    data_fingerprint,
    find_recipe,
    installed_recipes,
)

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


def failing(*_: Any) -> Any:
    raise KeyError(f"{MARK}-3")


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
