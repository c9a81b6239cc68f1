"""The picture of ``gradtx plot``: what a training run logged of its steps, panel by panel."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gradtx.demo.errors import CommandError
from gradtx.demo.figures import (
    MUTED,
    PALETTE,
    End,
    headline,
    label_ends,
    new_figure,
    quiet,
    ready_to_draw,
    save,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By name of a line, its values at the steps; NaN where a step has none.
Lines: TypeAlias = dict[str, np.ndarray]

# The families of `gradtx.report` in the order in which they are drawn, after everything else.
_TITLES = {
    "rate": "Learning rate",
    "norm": "Norms",
    "ratio": "Update / parameters",
    "norm/grads": "Norms of gradients",
    "norm/updates": "Norms of updates",
    "norm/params": "Norms of parameters",
    "clipped": "Share clipped",
    "nonfinite": "Numbers not finite",
    "skipped": "Steps skipped so far",
}
_ONLY_IF_ANY = ("clipped", "nonfinite", "skipped")
_EXACT = ("rate", "skipped")  # these do not jitter from batch to batch
_COLUMNS = 3


def plot_run(run: Path, out: Path) -> None:
    """Draw the reports of a run, one JSON object a line."""
    ready_to_draw(out, command="plot")
    steps, numbers = read_run(run)
    panels = arranged(numbers)
    if not panels:
        raise CommandError(f"{run} holds no numbers that a picture could show")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure("plot", 1.0 + 4.6 * columns, 1.2 + 3.0 * rows)
    every = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, (family, lines) in zip(every, panels.items(), strict=False):
        _panel(axes, family, steps, lines)
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    for axes in every[: len(panels)][-columns:]:
        axes.set_xlabel("step", color=MUTED)
        axes.tick_params(labelbottom=True)
    first, last = (f"{step:g}" for step in (steps.min(), steps.max()))
    quiet_ones = [_TITLES[x].lower() for x in _ONLY_IF_ANY if x in _families(numbers) - {*panels}]
    none = f" Always 0: {', '.join(quiet_ones)}." if quiet_ones else ""
    how = "Strong lines are running means over a twentieth of the run, faint ones the steps."
    headline(figure, run.name, f"{len(steps)} reports, steps {first} to {last}. {how}{none}")
    save(figure, out)
    print(f"{len(steps)} reports, steps {first} to {last}: {', '.join(panels)}")
    print(f"wrote {out}")


def read_run(run: Path) -> tuple[np.ndarray, Lines]:
    """The steps, and the numbers by name."""
    try:
        text = run.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CommandError(f"cannot read {run}: {why}") from None
    rows = [_row(run, i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise CommandError(f"{run} is empty: write one JSON object a line, such as gradtx.report's")
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    steps = np.array([row.get("step", i) for i, row in enumerate(rows, 1)])
    return steps, {n: np.array([row.get(n, math.nan) for row in rows]) for n in names}


def _row(run: Path, number: int, line: str) -> dict[str, float]:
    """The numbers of one line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CommandError(f"{run}, line {number}: this is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise CommandError(f"{run}, line {number}: not an object of numbers by name")
    return {name: float(x) for name, x in row.items() if type(x) in (int, float)}


def arranged(numbers: Lines) -> dict[str, Lines]:
    """The lines of each panel: what the user added first, then the families of a report, without
    those of which everything is 0."""
    panels: dict[str, Lines] = {}
    for name, values in numbers.items():
        family, line = _place(name)
        if family is not None and np.isfinite(values).any():
            panels.setdefault(family, {})[line] = values
    order = [family for family in panels if family not in _TITLES] + list(_TITLES)
    return {
        family: panels[family]
        for family in order
        if family in panels
        and not (family in _ONLY_IF_ANY and not any(map(_is_any, panels[family].values())))
    }


def _is_any(values: np.ndarray) -> bool:
    return bool(np.nan_to_num(values).any())


def _families(numbers: Lines) -> set[str | None]:
    return {_place(name)[0] for name in numbers}


def _place(name: str) -> tuple[str | None, str]:
    """The panel and the line of a number: `norm/grads/head` is a line of `norm/grads`. Those of
    `hyperparams`, whose names have dots, are in no panel."""
    family, *rest = name.split("/", 1)
    if not rest:
        return (None if "." in name else name), "all"
    kind, *group = rest[0].split("/", 1)
    return (f"{family}/{kind}", group[0]) if family == "norm" and group else (family, rest[0])


def _panel(axes: "Axes", family: str, steps: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    quiet(axes, _TITLES.get(family, family))
    log = _is_clearer_in_decades(family, np.concatenate(list(lines.values())))
    if log:
        axes.set_yscale("log", nonpositive="mask")
    ends = []
    for i, (name, values) in enumerate(lines.items()):
        color = PALETTE[i % len(PALETTE)]
        strong = values if family in _EXACT else running_mean(values)
        if strong is not values:
            axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
        axes.plot(steps, strong, color=color, linewidth=2.0)
        shown = strong[np.isfinite(strong) & ((strong > 0) | (not log))]
        if len(shown):
            ends.append(End(short(name, 22), float(shown[-1]), color))
    if len(steps) > 1:
        axes.set_xlim(steps.min(), steps.max())
    if [end.name for end in ends] != ["all"]:
        label_ends(axes, ends, min(0.1, 0.9 / len(ends)))


def _is_clearer_in_decades(family: str, values: np.ndarray) -> bool:
    """Whether a logarithmic axis shows more; of norms and ratios also where some are 0."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    whole = len(positive) == len(finite) or family.split("/")[0] in ("norm", "ratio")
    return bool(whole and len(positive) and positive.max() > 10 * positive.min())


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the finite values among the last twentieth of all, NaN where there is none."""
    window = max(1, len(values) // 20)
    finite = np.isfinite(values)

    def sums(x: np.ndarray) -> np.ndarray:
        total = np.cumsum(x)
        total[window:] -= total[:-window].copy()
        return total

    counts = sums(finite.astype(float))
    safe: np.ndarray = np.maximum(counts, 1)
    return np.where(counts > 0, sums(np.where(finite, values, 0.0)) / safe, math.nan)
