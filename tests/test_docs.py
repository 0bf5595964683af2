"""What the documentation says is true."""

import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest
import torch

from app import errors
from lethe.recipe import Recipe
from workers.recipe_checks import check_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_recipe_in_the_docs_is_a_sound_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "write-a-recipe.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    (tmp_path / "churn.py").write_text(code)
    recipe = runpy.run_path(str(tmp_path / "churn.py"))["Churn"]()
    assert isinstance(recipe, Recipe)
    torch.set_num_threads(1)
    model = recipe.build_model()
    recipe.train(model, recipe.training_data(), 0)
    assert check_recipe(recipe, model.state_dict(), torch.device("cpu")) == []


def test_every_problem_type_is_explained() -> None:
    page = (ROOT / "docs" / "problems.md").read_text()
    kinds = [errors.LetheError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    rows = {f"| `{kind.slug}` | {kind.status} |" for kind in kinds}
    assert {row for row in rows if row not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    for name in set(re.findall(r"`((?:lethe|app|workers)\.[a-z_.]+)`", page.read_text())):
        if name not in ("lethe.recipes",):  # the entry point group
            import_module(name)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=str)
def test_a_decision_fits_on_a_page(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 60
