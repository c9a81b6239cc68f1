"""The picture of ``gradtx landscape``: paths over contours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.demo.denominators import ROW_NORMS, distance, with_denominators
from gradtx.demo.descent import Descent
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
    short,
)
from gradtx.demo.functions import HESSIAN, Function
from gradtx.demo.optimizers import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Line(NamedTuple):
    """How a path is drawn; each is narrower than the last, dashed and marked in another way, so
    that paths that coincide are told apart."""

    width: float
    dashes: Any
    marker: str


_LINES = (
    _Line(3.6, "-", "o"),
    _Line(2.2, (0, (4, 1.5)), "^"),
    _Line(1.5, (0, (1.5, 1.5)), "D"),
    _Line(1.2, (0, (6, 2, 1.5, 2)), "v"),
    _Line(1.0, (0, (2, 3)), "P"),
    _Line(0.9, "-", "X"),
)
_MARKS = 25  # along a path


def landscape_picture(
    functions: Sequence[Function], paths: Mapping[str, Sequence[Descent]], out: Path
) -> None:
    """A row per function, a column per family, and for the quadratic a column of denominators."""
    drawn = [path.walker.family for path in paths[functions[0].name]]
    families = [family for family in Family if family in drawn]
    measured = any(function.name == "quadratic" for function in functions) and any(
        with_denominators(paths["quadratic"])
    )
    columns = len(families) + measured
    figure = new_figure("landscape", max(6.5, 4.4 * columns), 3.5 * len(functions) + 0.9)
    grid = figure.subplots(len(functions), columns, squeeze=False)
    for row, function in zip(grid, functions, strict=True):
        for axes, family in zip(row, families, strict=False):
            _panel(axes, function, [p for p in paths[function.name] if p.walker.family is family])
        row[0].set_ylabel(function.name, fontsize=12, weight="bold", color=INK)
        if measured and function.name == "quadratic":
            _denominators(row[-1], paths[function.name])
        elif measured:
            row[-1].set_axis_off()
    for axes, family in zip(grid[0], families, strict=False):
        axes.set_title(family.value, loc="left", fontsize=11, color=INK)
    subtitle = (
        "From the circle to the star, the minimum; the square is where a path ends. Marks are "
        "evenly spaced in steps; beside each name its learning rate."
    )
    headline(figure, "Paths to a minimum", subtitle)
    save(figure, out)


def _panel(axes: "Axes", function: Function, paths: Sequence[Descent]) -> None:
    _contours(axes, function)
    for i, path in enumerate(paths):
        _path(axes, path, PALETTE[i % len(PALETTE)], _LINES[i % len(_LINES)], i / len(paths))
    axes.plot(*function.start, "o", markersize=8, color="white", markeredgecolor=INK, zorder=5)
    axes.plot(*function.minimum, "*", markersize=17, color="#ffd700", markeredgecolor=INK, zorder=4)
    if function.name == "quadratic":
        _newton(axes, function)
    axes.set_xlim(function.view[0])
    axes.set_ylim(function.view[1])
    legend = axes.legend(
        loc="lower right", fontsize=8.5, framealpha=0.9, edgecolor="none", handlelength=3.2
    )
    legend.set_zorder(6)


def _path(axes: "Axes", path: Descent, color: str, line: _Line, offset: float) -> None:
    """A path; ``offset`` is where between the marks of another path its own are."""
    x, y = path.points.T
    every = max(1, len(x) // _MARKS)
    look: dict[str, Any] = {"color": color, "linewidth": line.width, "linestyle": line.dashes}
    marks: dict[str, Any] = {
        "marker": line.marker,
        "markersize": 4.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "markevery": (int(offset * every), every),
    }
    rate = "" if path.rate is None else f" {path.rate:g}"
    label = short(f"{path.walker.name}{rate}", 40)
    axes.plot(x, y, label=label, zorder=3, **look, **marks)
    axes.plot(x[-1], y[-1], "s", color=color, markersize=5.5, markeredgecolor="white", zorder=5)


def _contours(axes: "Axes", function: Function) -> None:
    x, y = np.meshgrid(*(np.linspace(*side, 300) for side in function.view))
    points = jnp.asarray(np.stack([x, y], axis=-1).reshape(-1, 2), jnp.float32)
    values = np.asarray(jax.vmap(function.value)(points)).reshape(x.shape)
    lowest = float(function.value(jnp.asarray(function.minimum)))
    # Equal steps of the cube root: close enough near the minimum, wide enough far from it.
    height = np.cbrt(np.maximum(values - lowest, 0))
    levels = np.linspace(0, float(height.max()), 22)
    axes.contourf(x, y, height, levels=levels, cmap="YlGnBu", alpha=0.28)
    axes.contour(x, y, height, levels=levels, colors="#8fa3ad", linewidths=0.4)
    quiet(axes)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)


def _newton(axes: "Axes", function: Function) -> None:
    """One Newton step, -H^-1 g: on a quadratic it is the whole way."""
    start = np.asarray(function.start)
    step = -np.linalg.solve(HESSIAN, HESSIAN @ start)
    axes.annotate(
        "",
        xy=tuple(start + 0.97 * step),
        xytext=tuple(start),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6, "linestyle": (0, (4, 2))},
        zorder=4,
    )
    x, y = start + 0.45 * step + (0.2, 0.45)
    axes.text(x, y, "Newton's step", weight="bold", fontsize=8.5, color=INK)


def _denominators(axes: "Axes", paths: Sequence[Descent]) -> None:
    """How far sqrt(nu) is from the Hessian's diagonal at every step, in proportion."""
    quiet(axes, "Distance of sqrt(nu) from the diagonal of H")
    diagonal = np.diag(HESSIAN)
    ends = []
    for (name, roots), color in zip(with_denominators(paths), PALETTE[1:], strict=False):
        away = distance(roots, diagonal)
        axes.plot(np.arange(1, len(away) + 1), away, color=color, linewidth=2)
        ends.append(End(name, float(away[-1]), color))
    for name, row in (("ones (SGD)", np.ones(2)), ("rows of H", ROW_NORMS)):
        height = float(distance(row, diagonal))
        axes.axhline(height, color=MUTED, linewidth=1, linestyle="--")
        ends.append(End(name, height, MUTED))
    axes.set_xlim(0, len(paths[0].points) - 1)
    axes.set_ylim(0, 1.1 * max(end.y for end in ends))
    axes.set_xlabel("step", color=MUTED)
    label_ends(axes, ends)
