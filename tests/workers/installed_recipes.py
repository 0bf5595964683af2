"""Recipes that other processes find, as if a package of theirs were installed."""

from collections.abc import Mapping
from pathlib import Path

from lethe.recipe import ENTRY_POINT_GROUP

METADATA = "Metadata-Version: 2.1\nName: recipes-of-tests\nVersion: 1\n"


def install(folder: Path, recipes: Mapping[str, str]) -> None:
    """Write what a package leaves that installs these recipes, ``module:attribute`` by name.

    Whoever has the folder on its search path finds them.
    """
    left = folder / "recipes_of_tests-1.dist-info"
    left.mkdir(parents=True)
    lines = "".join(f"{name} = {place}\n" for name, place in recipes.items())
    (left / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{lines}")
    (left / "METADATA").write_text(METADATA)
