"""The figure of the report: distance from a retrain and time, by the share deleted."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import arms
from benchmarks.datasets import DATASETS
from benchmarks.rows import Row
from benchmarks.summary import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS: Mapping[str, Callable[[Row], float | None]] = {
    "gap to the retrain": lambda row: row.gap,
    "time over that of the retrain": lambda row: row.time_ratio,
}
SCALES = ("linear", "log")
# The retrain itself is the zero of one panel and the one of the other.
LEFT_OUT = (arms.RETRAIN,)
COLOURS = {
    arms.ORIGINAL: "0.3",
    arms.OTHER_SEED: "black",
    **dict.fromkeys(arms.BASELINES, "0.6"),
    **{method: f"C{place}" for place, method in enumerate((*arms.PRODUCT, arms.LADDER))},
}
DASHES = {arms.ORIGINAL: ":", arms.OTHER_SEED: "--", "fine_tune": "--", "gradient_ascent": "-."}


@dataclass(frozen=True, slots=True)
class Curve:
    """One method in one panel, by the share deleted at random."""

    dataset: str
    panel: str
    method: str
    points: tuple[tuple[float, float], ...]
    """Percent deleted and the mean over the seeds, rising."""


def curves(shown: Sequence[Line]) -> list[Curve]:
    """Return what there is to draw; no time at all has no place on a logarithmic axis."""
    random = [line for line in shown if line.deletion == "random" and line.method not in LEFT_OUT]
    random.sort(key=lambda line: (list(DATASETS).index(line.dataset), _rank(line), line.share))
    found = []
    for (dataset, _), group in groupby(random, key=lambda line: (line.dataset, _rank(line))):
        of_method = list(group)
        for (panel, of), scale in zip(PANELS.items(), SCALES, strict=True):
            means = ((100 * line.share, line.mean(of)) for line in of_method)
            least = sys.float_info.min if scale == "log" else 0.0
            points = tuple((x, y) for x, y in means if y is not None and y >= least)
            if points:
                found.append(Curve(dataset, panel, of_method[0].method, points))
    return found


def draw(path: Path, shown: Sequence[Line]) -> bool:
    """Draw the figure as SVG; return whether there was anything to draw, and a library.

    The same lines give the same bytes with the same version of the library.
    """
    drawn = curves(shown)
    if not drawn or importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(curve.dataset for curve in drawn))
    # Without these, ids and dates make each file another one.
    with mpl.rc_context({"svg.hashsalt": "lethe", "font.size": 8}):
        whole = Figure(figsize=(9, 2.6 * len(datasets) + 0.8), layout="constrained")
        grid = whole.subplots(len(datasets), len(PANELS), squeeze=False)
        for axes_of_row, dataset in zip(grid, datasets, strict=True):
            for axes, panel, scale in zip(axes_of_row, PANELS, SCALES, strict=True):
                of_panel = [c for c in drawn if (c.dataset, c.panel) == (dataset, panel)]
                _plot(axes, of_panel, scale)
                axes.set(title=DATASETS[dataset].title, ylabel=panel)
        handles = {h.get_label(): h for axes in grid.flat for h in axes.get_lines()}
        whole.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        whole.savefig(path, format="svg", metadata={"Date": None})
    return True


def _plot(axes: Axes, of_panel: Sequence[Curve], scale: str) -> None:
    for curve in of_panel:
        axes.plot(
            *zip(*curve.points, strict=True),
            DASHES.get(curve.method, "-"),
            color=COLOURS[curve.method],
            marker="o",
            markersize=3,
            label=curve.method,
        )
    percents = sorted({x for curve in of_panel for x, _ in curve.points})
    axes.set(xscale="log", yscale=scale, xlabel="percent deleted")
    axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
    axes.minorticks_off()
    if scale == "linear":
        axes.set_ylim(bottom=0)


def _rank(line: Line) -> int:
    return arms.METHODS.index(line.method)
