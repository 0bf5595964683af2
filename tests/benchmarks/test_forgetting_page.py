"""The page of the benchmark of forgetting."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import (
    arms,
    figure,
    report,
)
from benchmarks.rows import Row
from benchmarks.summary import lines


def test_the_page_shows_means_over_seeds(whole: Any, folder: Path) -> None:
    page = (folder / "page.md").read_text()
    shown = lines([Row(**row) for row in whole.values()])
    assert len(shown) == 2 * len(arms.METHODS)
    accuracies = [whole["random", seed, "iau_adam"]["ua"] for seed in (0, 1)]
    table = page.split("### 20 % at random: 16 records; seeds 0, 1")[1].split("###")[0]
    cells = next(line for line in table.splitlines() if line.startswith("| iau_adam")).split("|")
    assert cells[3].strip() == f"{np.mean(accuracies):.3f}"
    gaps = [whole["random", seed, "iau_adam"]["gap"] for seed in (0, 1)]
    assert cells[5].strip() == f"{np.mean(gaps):.3f} ± {np.std(gaps, ddof=1):.3f}"
    assert "### One whole class" in page


def test_the_page_shows_all_pairs_of_retrains_and_the_floor_of_the_first_alone(
    whole: Any, folder: Path
) -> None:
    gaps = [
        [whole["random", seed, f"retrain_other_seed{end}"]["gap"] for seed in (0, 1)]
        for end in ("", "_2")
    ]
    title = next(t for t in (folder / "page.md").read_text().splitlines() if "16 records" in t)
    every, first = np.ravel(gaps), np.mean(gaps[0])
    assert title.endswith(
        f"noise floor {every.mean():.3f} ± {every.std(ddof=1):.3f} of 4 pairs "
        f"({first:.3f} of each seed's first)"
    )
    shown = next(
        line
        for line in lines([Row(**row) for row in whole.values()])
        if (line.deletion, line.method) == ("random", "retrain_other_seed")
    )
    assert [row.gap for row in shown.rows] == [gaps[0][0], gaps[1][0], gaps[0][1], gaps[1][1]]


def test_a_floor_of_one_pair_a_seed_is_a_number_alone() -> None:
    row = Row("tiny", "random", 0.2, 0, "retrain_other_seed", gap=0.25, noise_floor=0.25)
    assert "seeds 0; noise floor 0.250\n" in report.page(lines([row]), None)


def rows_to_draw() -> list[Row]:
    return [
        Row("tiny", "random", share, seed, method, gap=share * (1 + seed), time_ratio=share)
        for method in ("iau_adam", "retrain")
        for share in (0.1, 0.01)
        for seed in (0, 1)
    ]


def test_the_curves_are_means_by_the_share_deleted() -> None:
    drawn = figure.curves(lines(rows_to_draw()))
    assert {curve.method for curve in drawn} == {"iau_adam"}  # a retrain has no gap to itself
    assert np.allclose(drawn[0].points, [(1.0, 0.015), (10.0, 0.15)])
    of_classes = [replace(row, deletion="class") for row in rows_to_draw()]
    assert figure.curves(lines(of_classes)) == []


def test_the_figure_is_the_same_file_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    assert all(figure.draw(picture, lines(rows_to_draw())) for picture in pictures)
    assert ElementTree.parse(pictures[0]).getroot().tag.endswith("svg")  # noqa: S314  # our own
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_the_page_links_no_figure_that_was_not_drawn() -> None:
    row = Row("tiny", "random", 0.2, 0, "original", error="NotFinite")
    page = report.page(lines([row]), None)
    assert "](" not in page
    assert "1 NotFinite" in page
    assert "](f.svg)" in report.page(lines([row]), "f.svg")
