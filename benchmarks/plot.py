"""The pictures of results: `python -m benchmarks.plot` draws those of the committed ones anew.

They look like those of `gradtx compare`, and what is drawn is named where it stands.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.parameters import PARAMETER_SETS
from benchmarks.recipes import RECIPES
from benchmarks.report import headline as facts
from benchmarks.results import FOLDER, CaseResult, Ratio, Results
from gradtx.demo.figures import (
    INK,
    MUTED,
    PALETTE,
    End,
    headline,
    label_ends,
    new_figure,
    quiet,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _THEIRS, _FLOOR = PALETTE[0], PALETTE[3], "#b8b8b8"
# How ratios on their side of 1 are coloured: those whose quartiles are below, above, on both.
_FASTER, _SLOWER, _EQUAL = PALETTE[0], PALETTE[3], "#8a8a8a"


# -- step times and bytes ------------------------------------------------------------------------


def draw_plot(results: Results, path: Path) -> bool:
    """Write the picture; False where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    recipes = [name for name in RECIPES if any(c.recipe == name for c in results.good())]
    sets = [name for name in PARAMETER_SETS if any(c.set == name for c in results.good())]
    figure = new_figure("benchmarks", 4.4 + 1.45 * len(sets), 2.0 + 0.36 * len(recipes))
    *times, of_bytes = figure.subplots(
        1, len(sets) + 1, sharey=True, width_ratios=[1] * len(sets) + [2.4]
    )
    ratios = {(c.set, c.recipe): r for c in results.good() if (r := c.ratio("step"))}
    span = [x for r in ratios.values() for x in (r.low, r.high)]
    for axes, name in zip(times, sets, strict=True):
        quiet(axes)
        _entitle(axes, PARAMETER_SETS[name].title)
        mine = {recipe: ratios[name, recipe] for recipe in recipes if (name, recipe) in ratios}
        _draw_steps(axes, mine, recipes)
        axes.set_xlim(min(span) / 1.3, max(span) * 1.3)
    largest = max(sets, key=lambda s: max(c.parameters for c in results.good() if c.set == s))
    _draw_bytes(of_bytes, results, recipes, "gpt2" if "gpt2" in sets else largest)
    times[0].set_yticks(range(len(recipes)), [RECIPES[name].title for name in recipes])
    times[0].set_ylim(len(recipes) - 0.4, -0.7)
    for axes in (*times, of_bytes):
        axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    headline(
        figure,
        "Step time beside Optax's, and bytes accessed",
        "Left: gradtx / Optax by model, the median and quartiles of paired runs; blue is faster, "
        f"orange slower, grey both within the quartiles. {facts(results)}.",
    )
    save(figure, path)
    return True


def _entitle(axes: Axes, title: str, width: int = 13) -> None:
    axes.set_title(textwrap.fill(title, width), loc="left", fontsize=9, color=INK)


def _draw_steps(axes: Axes, ratios: dict[str, Ratio], recipes: list[str]) -> None:
    """A point for each recipe that was measured on a model."""
    axes.axvline(1.0, color=MUTED, linewidth=0.9, zorder=1)
    for recipe, ratio in ratios.items():
        y = recipes.index(recipe)
        color = _FASTER if ratio.high < 1 else _SLOWER if ratio.low > 1 else _EQUAL
        axes.plot([ratio.low, ratio.high], [y, y], color=color, linewidth=1.6, zorder=2)
        axes.plot(ratio.median, y, "o", color=color, markersize=5, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1 / 8, 1 / 4, 1 / 2, 1], ["1/8", "1/4", "1/2", "1"])
    axes.minorticks_off()


def _draw_bytes(axes: Axes, results: Results, recipes: list[str], name: str) -> None:
    """What the compiled programs access, between the floor and Optax."""
    quiet(axes)
    _entitle(axes, f"bytes a parameter, {PARAMETER_SETS[name].title}", 40)
    cases = [case for case in results.good() if case.set == name]
    for case in cases:
        y, ours, theirs = recipes.index(case.recipe), case.gradtx.bytes, case.reference.bytes
        axes.plot([case.gradtx.floor, max(ours, theirs)], [y, y], color=_FLOOR, linewidth=1)
        axes.plot(case.gradtx.floor, y, "|", color=MUTED, markersize=9, markeredgewidth=1.6)
        axes.plot(theirs, y, "o", color=_THEIRS, markersize=8, fillstyle="none")
        axes.plot(ours, y, "o", color=_OURS, markersize=5)
    named = max(cases, key=lambda c: abs(c.reference.bytes - c.gradtx.bytes), default=None)
    if named is not None:
        _name_bytes(axes, named, recipes.index(named.recipe))
    axes.set_xlim(left=0)


def _name_bytes(axes: Axes, case: CaseResult, y: int) -> None:
    """Say at one row what its marks are."""
    for name, x, color in (
        ("floor", case.gradtx.floor, MUTED),
        ("gradtx", case.gradtx.bytes, _OURS),
        ("Optax", case.reference.bytes, _THEIRS),
    ):
        axes.annotate(
            name, (x, y - 0.24), ha="center", color=color, fontsize=8, weight="bold", va="bottom"
        )


# -- quality in few bits -------------------------------------------------------------------------


def draw_quality(rows: list[dict[str, Any]], task: str, path: Path) -> None:
    """The last loss of each way against float32's, seed by seed."""
    figure = new_figure("benchmarks", 9.0, 1.6 + 0.34 * len(rows))
    axes: Axes = figure.subplots()
    quiet(axes)
    base = np.asarray(rows[0]["losses"])
    for y, row in enumerate(rows):
        apart = 100 * (np.asarray(row["losses"]) / base - 1)
        color = _THEIRS if "Optax" in row["way"] else _OURS
        axes.plot(apart, np.full(len(apart), y), "o", color=color, markersize=4, alpha=0.45)
        axes.plot([apart.mean()] * 2, [y - 0.3, y + 0.3], color=color, linewidth=2.4)
        text = f"{apart.mean():+.2f}%"
        axes.annotate(
            text,
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            color=color,
            fontsize=9,
        )
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(rows)), [row["way"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
    axes.set_xlabel("last loss against float32 with the same seed, %", color=MUTED)
    headline(
        figure,
        "What fewer bits cost in loss",
        f"{task}. A dot is a seed, a bar their mean; orange is Optax. Right of 0 is worse.",
    )
    save(figure, path)


# -- loss against steps and time -----------------------------------------------------------------


def smooth(curves: np.ndarray) -> np.ndarray:
    """[runs, points] -> running means over a twentieth of the points."""
    window = max(1, curves.shape[1] // 20)
    sums = np.cumsum(curves, axis=1)
    sums[:, window:] -= sums[:, :-window].copy()
    return np.asarray(sums / np.minimum(np.arange(1, curves.shape[1] + 1), window))


def seconds_at(row: dict[str, Any], part: np.ndarray | float) -> np.ndarray:
    """The seconds that a part of a run takes."""
    ends = np.cumsum([0.0, *row["chunk_s"]])
    return np.interp(part, np.linspace(0, 1, len(ends)), ends)


def draw_curves(kept: dict[str, Any], path: Path) -> None:
    """The loss against steps, and against seconds: the mean and the range of the runs."""
    rows, cores = kept["rows"], kept["device"]["cores"]
    figure = new_figure("benchmarks", 11.0, 5.8)
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    every = [smooth(np.asarray(row["curves"])) for row in rows]
    ends = [
        End(row["optimizer"], float(own.mean(0)[-1]), color)
        for row, own, color in zip(rows, every, PALETTE, strict=False)
    ]
    for axes, title in ((by_step, "against steps"), (by_time, "against time")):
        quiet(axes, title)
        axes.axhline(ends[0].y, color=MUTED, linewidth=0.9, dashes=(4, 3), zorder=1)
    for row, own, end in zip(rows, every, ends, strict=True):
        part = np.arange(1, own.shape[1] + 1) / own.shape[1]
        seconds = seconds_at(row, part)
        for axes, x in ((by_step, row["steps"] * part), (by_time, seconds)):
            axes.plot(x, own.mean(0), color=end.color, linewidth=1.8, zorder=3)
            axes.fill_between(x, own.min(0), own.max(0), color=end.color, alpha=0.15, lw=0)
        by_time.plot(seconds[-1], end.y, "o", color=end.color, markersize=5, zorder=4)
    by_step.set_xlim(0, rows[0]["steps"])
    by_time.set_xlim(left=0)
    by_step.set_ylim(min(own.min() for own in every) - 0.05, 1.35 * max(end.y for end in ends))
    by_step.set_xlabel("steps", color=MUTED)
    by_time.set_xlabel("seconds of one core" if cores == 1 else "seconds", color=MUTED)
    by_step.set_ylabel("training loss, nats a character", color=MUTED)
    label_ends(by_time, ends)
    headline(
        figure,
        "One small transformer, five optimizers",
        f"{kept['task']}; {rows[0]['steps']} steps. Lines: mean over "
        f"{len(rows[0]['losses'])} seeds, shaded: their range; each at the best of five learning "
        "rates. Dashed: where AdamW ends. A model this small says little about large ones.",
    )
    save(figure, path)


def main() -> None:
    """Draw the committed results."""
    for path in sorted(FOLDER.glob("*.json")):
        draw_plot(Results.read(path), path.with_suffix(".png"))
    path = FOLDER / "precision/quality.json"
    kept = json.loads(path.read_text())
    draw_quality(kept["rows"], kept["task"], path.with_suffix(".png"))
    path = FOLDER / "quality/curves.json"
    draw_curves(json.loads(path.read_text()), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
