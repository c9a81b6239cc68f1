"""A picture of a run: step times as ratios, and bytes beside the floor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.report import headline
from benchmarks.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distinct to colour-blind readers too (after Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#222222")
_MARKERS = "os^Dv<>"


def draw_plot(results: Results, path: Path) -> bool:
    """Write the picture; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    recipes = [name for name in RECIPES if any(c.recipe == name for c in results.good())]
    sets = [name for name in PARAMETER_SETS if any(c.set == name for c in results.good())]
    figure = Figure(figsize=(12, 1.8 + 0.55 * len(recipes)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_steps(left, results, recipes, sets)
    largest = max(sets, key=lambda s: max(c.parameters for c in results.good() if c.set == s))
    _draw_bytes(right, results, recipes, "gpt2" if "gpt2" in sets else largest)
    left.set_yticks(range(len(recipes)), [RECIPES[name].title for name in recipes])
    left.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(headline(results), fontsize=8, x=0.01, ha="left")
    figure.savefig(path)
    return True


def _draw_steps(axes: Axes, results: Results, recipes: list[str], sets: list[str]) -> None:
    for i, name in enumerate(sets):
        cases = [case for case in results.good() if case.set == name]
        ratios = [(recipes.index(c.recipe), r) for c in cases if (r := c.ratio("step"))]
        axes.errorbar(
            [r.median for _, r in ratios],
            [y + (i - (len(sets) - 1) / 2) * 0.7 / len(sets) for y, _ in ratios],
            xerr=list(
                zip(*[(r.median - r.low, r.high - r.median) for _, r in ratios], strict=True)
            ),
            fmt=_MARKERS[i % 7],
            color=_COLOURS[i % 7],
            markersize=4,
            linewidth=1,
            label=PARAMETER_SETS[name].title,
        )
    axes.axvline(1.0, color="#6b6b6b", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("step time, gradtx / Optax: median and quartiles", fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)


def _draw_bytes(axes: Axes, results: Results, recipes: list[str], name: str) -> None:
    cases = [case for case in results.good() if case.set == name]
    rows = [recipes.index(case.recipe) for case in cases]
    kinds = (
        ("floor", [case.gradtx.floor for case in cases], "#6b6b6b"),
        ("gradtx", [case.gradtx.bytes for case in cases], _COLOURS[0]),
        ("Optax", [case.reference.bytes for case in cases], _COLOURS[1]),
    )
    for offset, (label, values, colour) in zip((-0.25, 0, 0.25), kinds, strict=True):
        axes.barh([y + offset for y in rows], values, 0.24, color=colour, label=label)
    title = f"bytes a parameter, {PARAMETER_SETS[name].title}"
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False)
